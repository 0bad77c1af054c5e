"""An image has the same bits wherever, and in however many pieces, its shard is drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.config import DiffusionConfig, SamplingConfig
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.sampling import ChainState, draw, to_uint8
from orchestrator.artifacts.samples.commits import SetOrigin
from orchestrator.artifacts.samples.encoding import Pixels
from orchestrator.fleet.work import Watch
from orchestrator.jobs.units import Shard, plan_shards
from orchestrator.sampling.drawing import (
    DrawnShard,
    ShardSampler,
    UnfinishedShard,
    trajectory_steps,
)
from orchestrator.sampling.partial_keys import newest_partials
from orchestrator.sampling.partials import load_partial, save_partial
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore

SHAPE = (2, 4, 4)
CONFIG = SamplingConfig(num_steps=12, microbatch_size=4, seed=5)
DIFFUSION = GaussianDiffusion(DiffusionConfig(num_timesteps=30))
ORIGIN = SetOrigin(checkpoint_sha256="c", seed=5, decisions_sha256="d")
PATHS = JobPaths("set")


def denoise(x_t: Tensor, t: Tensor) -> Tensor:
    """Mix the pixels of each image, as a network would; no image looks at its neighbours."""
    weight = torch.linspace(-1, 1, x_t[0].numel()).sin().reshape(x_t.shape[1:])
    return (
        x_t * 0.5 + (x_t * weight).mean(dim=(1, 2, 3), keepdim=True) + t[:, None, None, None] / 99
    )


def sampler(num_trajectories: int = 0) -> ShardSampler:
    """Return a sampler with a deterministic network."""
    return ShardSampler(
        lambda start: denoise, DIFFUSION, CONFIG, SHAPE, torch.device("cpu"), num_trajectories
    )


def drawn(shard: Shard, num_trajectories: int = 0) -> DrawnShard:
    """Draw a shard in one go."""
    result = sampler(num_trajectories).draw(UnfinishedShard(shard=shard), Watch())
    assert isinstance(result, DrawnShard)
    return result


class StopAfter(Watch):
    """Stops the drawing after a number of reverse steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def show(self, shard: int | None, steps_done: int = 0, steps_total: int = 0) -> None:
        """Count the looks at the watch: one a step."""
        super().show(shard, steps_done, steps_total)
        self._left -= 1
        if self._left < 0:
            self.stop()


def whole_set(shard_size: int) -> Pixels:
    """Draw ten images in shards of a size."""
    return np.concatenate([drawn(shard).pixels for shard in plan_shards(10, shard_size)])


def test_images_are_those_of_the_plain_sampler() -> None:
    """The fleet adds nothing to the mathematics and takes nothing away."""
    images = draw(denoise, DIFFUSION, CONFIG, torch.arange(4), SHAPE)
    assert np.array_equal(drawn(Shard(0, 0, 4)).pixels, to_uint8(images).numpy())


def test_shard_size_changes_no_pixel() -> None:
    """Shards are cut for the machines' sake; nobody may see where."""
    assert np.array_equal(whole_set(4), whole_set(8))
    assert whole_set(4).shape == (10, 4, 4, 2)


@pytest.mark.parametrize("steps", [0, 1, 11, 12, 13, 14, 30, 38])
def test_interrupted_shard_goes_on_with_the_same_bits(steps: int) -> None:
    """A worker told to stop at any step loses nothing, nor does the film of the first images."""
    store, shard = MemoryStore(), Shard(0, 0, 10)
    half = sampler(6).draw(UnfinishedShard(shard=shard), StopAfter(steps))
    assert isinstance(half, UnfinishedShard)
    key = save_partial(store, PATHS.attempt(1), half, ORIGIN)
    assert key is not None
    unfinished = load_partial(store, key, shard, ORIGIN)
    assert unfinished is not None
    again = sampler(6).draw(unfinished, Watch())
    whole = drawn(shard, num_trajectories=6)
    assert isinstance(again, DrawnShard)
    assert np.array_equal(again.pixels, whole.pixels)
    assert again.frames is not None
    assert whole.frames is not None
    assert np.array_equal(again.frames, whole.frames)


def test_film_runs_from_noise_to_the_image() -> None:
    """Its last frame is the image itself, and it has as many frames as were promised."""
    whole = drawn(Shard(0, 0, 10), num_trajectories=6)
    assert whole.frames is not None
    assert whole.frames.shape == (6, len(trajectory_steps(CONFIG.num_steps)), 4, 4, 2)
    assert np.array_equal(whole.frames[:, -1], whole.pixels[:6])
    assert drawn(Shard(1, 8, 10), num_trajectories=6).frames is None


@pytest.mark.parametrize("num_steps", [1, 2, 10, 11, 1000])
def test_film_has_both_ends_and_no_frame_twice(num_steps: int) -> None:
    """However short the chain is."""
    steps = trajectory_steps(num_steps)
    assert steps[0] == 0
    assert steps[-1] == num_steps
    assert len(set(steps)) == len(steps) <= 11


def test_given_up_shard_yields_nothing() -> None:
    """Another worker has committed it: what is half drawn is worth nothing."""
    watch = Watch()
    watch.drop(0)
    assert sampler().draw(UnfinishedShard(shard=Shard(0, 0, 10)), watch) is None


def test_partial_of_another_set_is_not_used() -> None:
    """Fenced: another seed, checkpoint, decision or range begins anew."""
    store, shard = MemoryStore(), Shard(0, 0, 10)
    half = sampler().draw(UnfinishedShard(shard=shard), StopAfter(3))
    assert isinstance(half, UnfinishedShard)
    key = save_partial(store, PATHS.attempt(1), half, ORIGIN)
    assert key is not None
    assert load_partial(store, key, shard, ORIGIN) is not None
    assert load_partial(store, key, shard, replace(ORIGIN, seed=6)) is None
    assert load_partial(store, key, replace(shard, stop=9), ORIGIN) is None
    assert load_partial(store, "gone", shard, ORIGIN) is None
    body = store.get(key).body
    newer = body.replace(rb"{\"format_version\": 1", rb"{\"format_version\": 9")
    assert newer != body
    store.put(key, newer)
    assert load_partial(store, key, shard, ORIGIN) is None
    store.put(key, body[:40])
    assert load_partial(store, key, shard, ORIGIN) is None


def test_newest_partial_of_a_shard_is_found_last() -> None:
    """Three attempts may each have got a bit further."""
    store = MemoryStore()
    state = ChainState(torch.zeros(4, *SHAPE), 3)
    keys = [
        save_partial(
            store,
            PATHS.attempt(number),
            UnfinishedShard(shard=Shard(7, 0, 10), chain=state),
            ORIGIN,
        )
        for number in (1, 2, 3)
    ]
    assert list(newest_partials(store, PATHS, before=3)) == [(7, keys[0]), (7, keys[1])]


def test_of_one_attempt_the_partial_that_was_saved_last_is_found_last() -> None:
    """Their names end by chance; one worker may have gone on from what another had left."""
    store = MemoryStore()
    unfinished = UnfinishedShard(shard=Shard(7, 0, 10), chain=ChainState(torch.zeros(4, *SHAPE), 3))
    keys = []
    for _ in range(8):
        keys.append(save_partial(store, PATHS.attempt(1), unfinished, ORIGIN))
        store.advance(1)
    assert [key for _, key in newest_partials(store, PATHS, before=2)] == keys


def test_a_shard_that_was_not_begun_leaves_no_partial() -> None:
    """A shard that was not begun needs no object."""
    store = MemoryStore()
    assert (
        save_partial(store, PATHS.attempt(1), UnfinishedShard(shard=Shard(0, 0, 4)), ORIGIN) is None
    )
    assert not store.objects
