"""A GPU does what a CPU does, without waiting for the host. Run these where there is one."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, SamplingConfig, TrainingConfig, UNetConfig
from ddpm.network.unet import UNet
from ddpm.process.gaussian import Denoiser, GaussianDiffusion
from ddpm.process.likelihood import bits_per_dim
from ddpm.process.sampling import draw
from ddpm.training.data import ImageDataset, to_float
from ddpm.training.loop import TrainState, train_steps
from orchestrator.attempts.compute import set_up_process
from orchestrator.sampling.network import build_denoiser

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

SHAPE = (3, 16, 16)
UNET = UNetConfig(channels=32, channel_multipliers=(1, 2), num_res_blocks=1, dropout=0.0)
DIFFUSION = DiffusionConfig(num_timesteps=50)


@pytest.fixture(autouse=True)
def as_a_worker() -> Iterator[None]:
    """Set this process up as a worker's, and back."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = torch.get_num_threads(), cudnn.allow_tf32, matmul.allow_tf32
    set_up_process(ComputeDecision(device_kind="cuda", num_threads=before[0]))
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    torch.set_num_threads(before[0])
    cudnn.allow_tf32, matmul.allow_tf32 = before[1:]


def state_on(compute: ComputeDecision, dropout: float = 0.0) -> TrainState:
    """Return a training that has not begun."""
    return TrainState(
        unet_config=replace(UNET, dropout=dropout),
        diffusion_config=DIFFUSION,
        config=TrainingConfig(
            num_steps=6, global_batch_size=8, learning_rate=1e-3, horizontal_flip=True
        ),
        image_shape=SHAPE,
        compute=compute,
    )


def dataset() -> ImageDataset:
    """Return 32 images of noise."""
    channels, height, width = SHAPE
    images = np.random.default_rng(0).integers(0, 256, (32, height, width, channels), np.uint8)
    return ImageDataset(images, np.arange(len(images)))


def losses(state: TrainState, until_step: int) -> list[float]:
    """Train, and return the loss of each step."""
    return [step.loss for step in train_steps(state, dataset(), until_step=until_step)]


def denoiser_on(compute: ComputeDecision) -> Denoiser:
    """Return a network with random weights, also in its last layer, which begins at 0."""
    model = UNet(UNET, SHAPE, seed=3).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    torch.nn.init.normal_(model.conv_out.weight, std=0.05, generator=generator)
    return build_denoiser(model, compute)


def images_on(compute: ComputeDecision) -> Tensor:
    """Draw eight images with random weights; return them on the CPU."""
    diffusion = GaussianDiffusion(DIFFUSION).to(compute.device)
    config = SamplingConfig(num_steps=20, microbatch_size=8, seed=2)
    return draw(
        denoiser_on(compute), diffusion, config, torch.arange(8), SHAPE, compute.device
    ).cpu()


def test_training_has_the_losses_of_the_cpu() -> None:
    """Noise, timesteps and the order of the images are the same wherever they are made."""
    on_gpu = losses(state_on(ComputeDecision(device_kind="cuda")), 4)
    on_cpu = losses(state_on(ComputeDecision()), 4)
    assert on_gpu == pytest.approx(on_cpu, rel=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_training_in_bfloat16_stays_near_float32(compiled: bool) -> None:
    """The way that a job takes by itself."""
    compute = ComputeDecision(device_kind="cuda", precision="bf16", compiled=compiled)
    exact = losses(state_on(ComputeDecision(device_kind="cuda")), 4)
    assert losses(state_on(compute), 4) == pytest.approx(exact, rel=0.03)


def test_the_step_loop_does_not_wait_for_the_device() -> None:
    """After the first steps, which set things up, no step may synchronise."""
    state = state_on(ComputeDecision(device_kind="cuda", precision="bf16"), dropout=0.1)
    steps = train_steps(state, dataset(), until_step=6)
    next(steps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert [step.step for step in steps] == [2, 3, 4, 5, 6]
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("compiled", [False, True])
def test_a_training_that_is_gone_on_with_takes_the_steps_of_one_that_went_on(
    compiled: bool,
) -> None:
    """Bit for bit."""
    compute = ComputeDecision(device_kind="cuda", precision="bf16", compiled=compiled)
    whole, begun, resumed = (state_on(compute, dropout=0.1) for _ in range(3))
    expected = losses(whole, 6)
    assert losses(begun, 3) == expected[:3]
    resumed.step = begun.step
    resumed.parameters.values.copy_(begun.parameters.values)
    resumed.ema.copy_(begun.ema)
    resumed.optimizer.num_steps.copy_(begun.optimizer.num_steps)
    for name, moment in begun.optimizer.moments.items():
        resumed.optimizer.moments[name].copy_(moment)
    assert losses(resumed, 6) == expected[3:]
    assert torch.equal(resumed.parameters.values, whole.parameters.values)
    assert torch.equal(resumed.ema, whole.ema)


def test_a_replayed_step_has_the_bits_of_one_that_is_launched() -> None:
    """What a graph reads is in its place, and nothing is left of the step before."""
    state = state_on(ComputeDecision(device_kind="cuda", precision="bf16"), dropout=0.1)
    losses(state, 3)
    positions = np.arange(8)
    gradient = state.gradient_at(positions)
    images = dataset().read(positions).cuda()
    gradient.set_gradients(images, 3)
    replayed = state.parameters.grads.clone()
    gradient.release()
    gradient.is_captured = False  # from here on it is launched
    gradient.set_gradients(images, 3)
    assert torch.equal(state.parameters.grads, replayed)


def test_images_are_those_of_the_cpu() -> None:
    """Within the rounding of sums in another order."""
    found = images_on(ComputeDecision(device_kind="cuda"))
    torch.testing.assert_close(found, images_on(ComputeDecision()), rtol=0, atol=1e-3)


def test_a_replayed_graph_draws_the_images_of_the_eager_network() -> None:
    """Each result is overwritten by the next replay, so what is kept must be a copy."""
    compiled = ComputeDecision(device_kind="cuda", compiled=True)
    found = images_on(compiled)
    assert torch.equal(found, images_on(compiled))
    eager = images_on(ComputeDecision(device_kind="cuda"))
    torch.testing.assert_close(found, eager, rtol=0, atol=1e-3)


def test_bits_per_dimension_are_those_of_the_cpu() -> None:
    """All their parts, of a network that predicts something."""
    bounds = []
    for compute in (ComputeDecision(), ComputeDecision(device_kind="cuda")):
        bound = bits_per_dim(
            denoiser_on(compute),
            GaussianDiffusion(DIFFUSION).to(compute.device),
            to_float(dataset().read(np.arange(4))).to(compute.device),
            torch.arange(4, device=compute.device),
            seed=5,
            num_timesteps=7,
        )
        bounds.append([part.cpu() for part in (bound.prior, bound.terms, bound.decoder)])
    for on_cpu, on_gpu in zip(*bounds, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-3, atol=0)
