"""Augmentation: what was done is told exactly, is the same on any worker, and is not drawn."""

import math

import pytest
import torch

from ddpm.config import UNetConfig
from ddpm.exchange.names import weights_there
from ddpm.network.unet import UNet
from ddpm.network.unet_size import count_parameters
from ddpm.process.augmentation import augmented
from ddpm.training.checkpoint import StateSnapshot
from tests.support.small_training import UNET, small_state, train

POSITIONS = torch.arange(256)


def picture(height: int = 16, width: int = 16) -> torch.Tensor:
    """Return one smooth image with no symmetry, 256 times."""
    y = torch.linspace(-1, 1, height)[:, None]
    x = torch.linspace(-1, 1, width)[None]
    image = torch.exp(-3 * ((x - 0.3) ** 2 + (y + 0.2) ** 2)) * (1 + 0.5 * x)
    return image.expand(len(POSITIONS), 1, height, width).contiguous()


def placed(told: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the picture as the nine numbers say, from its formula, in float64: no grid is read."""
    flip_x, flip_y, zoom, cos, sin, along, across, right, down = told.double().tolist()
    y = (torch.arange(height, dtype=torch.float64) + 0.5 - height / 2)[:, None]
    x = (torch.arange(width, dtype=torch.float64) + 0.5 - width / 2)[None]
    x, y = x - 0.125 * width * right, y - 0.125 * height * down
    stretch = math.copysign(math.hypot(along, across), along)
    angle = math.atan2(across, along) if along >= 0 else math.atan2(-across, -along)
    # Along the stretch's axis, whose y points up as that of all angles here, and across it.
    u = (math.cos(angle) * x - math.sin(angle) * y) * 2 ** (-0.2 * stretch)
    v = (math.sin(angle) * x + math.cos(angle) * y) * 2 ** (0.2 * stretch)
    x, y = math.cos(angle) * u + math.sin(angle) * v, math.cos(angle) * v - math.sin(angle) * u
    cos = cos + 1.0
    x, y = cos * x - sin * y, sin * x + cos * y
    x, y = x * 2 ** (-0.2 * zoom), y * 2 ** (-0.2 * zoom)
    x = -x if flip_x else x
    y = -y if flip_y else y
    x, y = 2 * x / (width - 1), 2 * y / (height - 1)
    inside = (x.abs() < 0.9) & (y.abs() < 0.9)
    image = torch.exp(-3 * ((x - 0.3) ** 2 + (y + 0.2) ** 2)) * (1 + 0.5 * x)
    return torch.where(inside, image, torch.nan)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (24, 16)])
def test_the_nine_numbers_say_what_was_done(height: int, width: int) -> None:
    """A network that is told something else than what was done draws what was done."""
    images, told = augmented(picture(height, width), 3, 5, POSITIONS, 0.5)
    for image, numbers in zip(images, told, strict=True):
        expected = placed(numbers, height, width)
        seen = ~expected.isnan()
        error = (image[0].double() - expected)[seen]
        assert seen.sum() == 0 or float(error.abs().mean()) < 0.01


def test_the_share_is_that_which_was_asked_for() -> None:
    """Each of the six with the same probability, apart from the others."""
    images = picture().repeat(8, 1, 1, 1)
    _, told = augmented(images, 0, 1, torch.arange(len(images)), 0.12)
    done = told != 0
    for column in (0, 1, 2, 4, 5, 7):
        assert abs(float(done[:, column].float().mean()) - 0.12) < 0.03
    both = float((done[:, 0] & done[:, 7]).float().mean())
    assert abs(both - 0.12**2) < 0.012


def test_what_is_done_is_a_function_of_seed_step_and_position() -> None:
    """So that a resumed training, or one of other microbatches, does the same."""
    images = torch.rand(256, 1, 16, 16)
    whole, told = augmented(images, 3, 5, POSITIONS, 0.12)
    part, told_part = augmented(images[40:50], 3, 5, POSITIONS[40:50], 0.12)
    assert torch.equal(part, whole[40:50])
    assert torch.equal(told_part, told[40:50])
    for seed, step in ((4, 5), (3, 6)):
        assert not torch.equal(augmented(images, seed, step, POSITIONS, 0.12)[1], told)


def test_an_image_to_which_nothing_was_done_is_the_same_to_the_bit() -> None:
    """And nothing is told of it: so images are drawn as they are in the data set."""
    images = torch.rand(256, 1, 16, 16)
    result, told = augmented(images, 3, 5, POSITIONS, 0.12)
    untouched = (told == 0).all(dim=1)
    assert 0.3 < float(untouched.float().mean()) < 0.6
    assert torch.equal(result[untouched], images[untouched])
    changed = (result != images).flatten(1).any(dim=1)
    assert torch.equal(changed, ~untouched)


def test_a_network_is_told_and_learns_from_it() -> None:
    """It begins as one that was told nothing, and without `augment` it stays one."""
    state = small_state(unet={"augmentation": True}, augment=0.5)
    plain = small_state()
    assert isinstance(state.model, UNet)
    assert state.model.augment_embedding is not None
    x, t, told = torch.randn(2, 1, 8, 8), torch.tensor([3, 40]), torch.ones(2, 9)
    assert torch.equal(state.model.eval()(x, t, None, told), plain.model.eval()(x, t))
    train(state, 3)
    assert float(state.model.augment_embedding.detach().abs().max()) > 0
    unused = train(small_state(unet={"augmentation": True}), 3)
    assert isinstance(unused.model, UNet)
    assert unused.model.augment_embedding is not None
    assert float(unused.model.augment_embedding.detach().abs().max()) == 0


@pytest.mark.parametrize("microbatch", [None, 2])
def test_a_resumed_training_augments_as_one_that_went_on(microbatch: int | None) -> None:
    """Which is why none of it comes from a generator with a state."""
    asked = {"unet": {"augmentation": True}, "augment": 0.5, "microbatch_size": microbatch}
    whole, resumed = train(small_state(**asked), 4), small_state(**asked)  # type: ignore[arg-type]
    half = train(small_state(**asked), 2)  # type: ignore[arg-type]
    StateSnapshot.take(half).put_back(resumed)
    train(resumed, 4)
    assert torch.equal(resumed.parameters.values, whole.parameters.values)


def test_sizes_count_it_and_diffusers_needs_it_not() -> None:
    """Images are drawn without it, so a model of the other form loses nothing."""
    config = UNetConfig(**UNET, augmentation=True)
    model = UNet(config, (1, 8, 8))
    assert count_parameters(config, (1, 8, 8)) == sum(p.numel() for p in model.parameters())
    plain = UNet(UNetConfig(**UNET), (1, 8, 8))
    theirs = weights_there(model.state_dict())
    assert theirs.keys() == weights_there(plain.state_dict()).keys()
