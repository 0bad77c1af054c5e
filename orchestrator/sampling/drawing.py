"""Draws the images of one shard, microbatch by microbatch, and can stop at any reverse step."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm.config import SamplingConfig
from ddpm.process.gaussian import Denoiser, GaussianDiffusion
from ddpm.process.sampling import ChainState, sample_chain, to_uint8
from ddpm.process.steps import plan_steps
from orchestrator.artifacts.samples.encoding import Pixels
from orchestrator.fleet.work import Watch
from orchestrator.jobs.units import Shard

MAX_FRAMES = 11


@dataclass(frozen=True, kw_only=True)
class DrawnShard:
    """A shard whose images are all there.

    Attributes:
        shard: Which.
        pixels: (N, H, W, C) uint8.
        frames: (K, F, H, W, C) uint8, trajectories of its first images; None if none was asked for.
        seconds: Worker-seconds that it took, those before an interruption included.
    """

    shard: Shard
    pixels: Pixels
    frames: Pixels | None
    seconds: float


@dataclass(kw_only=True)
class UnfinishedShard:
    """What there is of a shard while it is drawn: what an interruption must not lose.

    Attributes:
        shard: Which.
        pixels: (n, H, W, C) uint8 for each finished microbatch.
        chain: Where the microbatch stands that is being drawn; None between two.
        trajectories: (k, F, H, W, C) uint8 for each finished microbatch of which they are kept.
        frames: (k, H, W, C) uint8 for each frame of the present microbatch so far.
        seconds: Worker-seconds that went into it.
    """

    shard: Shard
    pixels: list[Pixels] = field(default_factory=list)
    chain: ChainState | None = None
    trajectories: list[Pixels] = field(default_factory=list)
    frames: list[Pixels] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def num_drawn(self) -> int:
        """Images of the finished microbatches."""
        return sum(len(pixels) for pixels in self.pixels)


class ShardSampler:
    """Draws shards with one network.

    Every microbatch has the same shape; what is beyond the shard's end is drawn and thrown away,
    so that the bits of an image do not depend on where the set ends.

    Args:
        denoiser: The network, for the microbatch that begins with an image.
        diffusion: On the network's device.
        config: The sampler.
        image_shape: (C, H, W).
        device: Where it runs.
        num_trajectories: Number of the set's first images whose trajectory from x_T to x_0 is kept.
    """

    def __init__(
        self,
        denoiser: Callable[[int], Denoiser],
        diffusion: GaussianDiffusion,
        config: SamplingConfig,
        image_shape: tuple[int, int, int],
        device: torch.device,
        num_trajectories: int = 0,
    ) -> None:
        self._denoiser = denoiser
        self._diffusion = diffusion
        self._config = config
        self._image_shape = image_shape
        self._device = device
        self._num_trajectories = num_trajectories
        self._num_steps = len(plan_steps(config, diffusion))
        self._kept_steps = trajectory_steps(self._num_steps)

    def hasty(self, num_steps: int) -> Self:
        """Return a sampler of fewer steps with the same network, that keeps no trajectory."""
        few = min(num_steps, self._config.num_steps)
        config = replace(self._config, num_steps=few, spacing="linear")
        return type(self)(self._denoiser, self._diffusion, config, self._image_shape, self._device)

    def draw(
        self, unfinished: UnfinishedShard, watch: Watch
    ) -> DrawnShard | UnfinishedShard | None:
        """Draw what is missing of a shard.

        Args:
            unfinished: What there is of it.
            watch: Looked at after each reverse step.

        Returns:
            The shard; what there is of it if it was told to stop; None if the shard is given up.
        """
        shard, size = unfinished.shard, self._config.microbatch_size
        began_at, before_s = time.monotonic(), unfinished.seconds
        while unfinished.num_drawn < shard.num_images:
            start = shard.start + unfinished.num_drawn
            for state in self._chain(start, unfinished):
                self._keep_frames(start, state, unfinished)
                watch.count(state.step_index - (unfinished.chain or state).step_index)
                unfinished.chain = state
                unfinished.seconds = before_s + time.monotonic() - began_at
                self._show(unfinished, watch)
                if watch.is_dropped(shard.index):
                    return None
                if watch.is_stopped:
                    return unfinished
            self._finish(unfinished, min(size, shard.stop - start))
        frames = np.concatenate(unfinished.trajectories) if unfinished.trajectories else None
        seconds = before_s + time.monotonic() - began_at
        return DrawnShard(
            shard=shard, pixels=np.concatenate(unfinished.pixels), frames=frames, seconds=seconds
        )

    def _chain(self, start: int, unfinished: UnfinishedShard) -> Iterator[ChainState]:
        indices = torch.arange(start, start + self._config.microbatch_size, device=self._device)
        begun = unfinished.chain
        if begun is not None:
            begun = begun.on(self._device)
        return sample_chain(
            self._denoiser(start),
            self._diffusion,
            self._config,
            indices,
            self._image_shape,
            self._device,
            start=begun,
        )

    def _keep_frames(self, start: int, state: ChainState, unfinished: UnfinishedShard) -> None:
        wanted = min(self._num_trajectories, unfinished.shard.stop) - start
        if wanted <= 0 or state.step_index not in self._kept_steps:
            return
        if self._kept_steps.index(state.step_index) == len(unfinished.frames):
            unfinished.frames.append(_pixels(state.x[:wanted]))

    def _finish(self, unfinished: UnfinishedShard, num_images: int) -> None:
        if unfinished.chain is not None:
            unfinished.pixels.append(_pixels(unfinished.chain.x[:num_images]))
        if unfinished.frames:
            unfinished.trajectories.append(np.stack(unfinished.frames, axis=1))
        unfinished.chain, unfinished.frames = None, []

    def _show(self, unfinished: UnfinishedShard, watch: Watch) -> None:
        steps, size = self._num_steps, self._config.microbatch_size
        in_this = unfinished.chain.step_index if unfinished.chain else 0
        num_microbatches = -(-unfinished.shard.num_images // size)
        watch.show(
            unfinished.shard.index,
            len(unfinished.pixels) * steps + in_this,
            num_microbatches * steps,
        )


def trajectory_steps(num_steps: int) -> list[int]:
    """Return the numbers of steps done at which a frame is kept: both ends, at most 11 in all."""
    num_frames = min(num_steps + 1, MAX_FRAMES)
    steps: NDArray[np.float64] = np.linspace(0, num_steps, num_frames)
    return [int(step) for step in steps.round()]


def _pixels(x: Tensor) -> Pixels:
    pixels: Pixels = to_uint8(x).cpu().numpy()
    return pixels
