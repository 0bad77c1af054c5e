"""The gradient of one step's loss; on a GPU as one CUDA graph, captured once and then replayed.

A step of the CIFAR-10 network is some two thousand small kernels, more than a host can launch while
a GPU runs them. Replayed, they are one launch, and they are the same kernels: no bit changes.
"""

import itertools
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm.compute import ComputeDecision, overwrite_gradients
from ddpm.config import TrainingConfig
from ddpm.network.dropout import seed_generators, set_dropout_keys
from ddpm.network.generative import GenerativeNetwork
from ddpm.process.augmentation import augmented
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.noise import dropped_labels, flips, training_noise, training_timesteps
from ddpm.training.data import to_float
from ddpm.training.families import Losses
from ddpm.training.flat import FlatParameters

NUM_QUARTERS = 4
# Behind the gradients in the all-reduce: the loss, its sum and the number of images in each
# quarter of t, and how many workers were asked to stop.
NUM_EXTRA = 1 + 2 * NUM_QUARTERS + 1

_NUM_WARM_UPS = 3  # in which code is compiled, and libraries take memory that no capture may take


class LossGradient:
    """Computes one worker's part of the gradient, into the buffers of `FlatParameters`.

    Args:
        model: The network; its gradients live in `parameters`.
        forward: The same, perhaps compiled.
        parameters: Its buffers, with NUM_EXTRA numbers behind the gradients.
        diffusion: On the model's device.
        config: Of the training.
        compute: How it computes.
        positions: (B,) int64, the places of this worker's images in the global batch.
        losses: What is lowered; None for the loss of the diffusion.
    """

    def __init__(  # noqa: PLR0913  # by keyword: all that a step is made of
        self,
        *,
        model: GenerativeNetwork,
        forward: Callable[..., Tensor],
        parameters: FlatParameters,
        diffusion: GaussianDiffusion,
        config: TrainingConfig,
        compute: ComputeDecision,
        positions: NDArray[np.int64],
        losses: Losses | None = None,
    ) -> None:
        self._losses = losses
        self._model = model
        self._forward = forward
        self._parameters = parameters
        self._diffusion = diffusion
        self._config = config
        self._compute = compute
        self._device = compute.device
        self._first_image = int(positions[0])
        num_workers = config.global_batch_size // len(positions)
        size = config.images_per_pass(num_workers)
        self._parts = torch.split(torch.from_numpy(positions).to(self._device), size)
        self._replay: _Replay | None = None
        # What another package's network does may not be possible within a graph.
        is_known = losses is None and not model.is_own
        self.is_captured = self._device.type == "cuda" and is_known
        self._added_to = [parameters.grads]  # by the backward passes, so zeros before them
        overwritten = overwrite_gradients(forward) if len(self._parts) == 1 else set()
        if overwritten:
            added = (one.grad for one in model.parameters() if one not in overwritten)
            self._added_to = [parameters.extra, *(grad for grad in added if grad is not None)]

    def set_gradients(self, images: Tensor, step: int, labels: Tensor | None = None) -> None:
        """Set the gradients, and the extra numbers but the last, to this worker's part of them.

        Args:
            images: (B, H, W, C) uint8, or float32 in [-1, 1], on the device.
            step: Steps taken before this one.
            labels: (B,) int64 on the device, their classes; a network without labels needs none.
        """
        size, first_image = len(self._parts[0]), self._first_image
        if not self._model.knows_labels:
            labels = None
        by_part = itertools.repeat(None) if labels is None else torch.split(labels, size)
        parts = list(zip(torch.split(images, size), self._parts, by_part, strict=False))
        if self.is_captured and self._replay is None:
            self._replay = _Replay(self._add, step, *parts[0])
        add = self._replay or (self._add if self._losses is None else self._add_other)
        torch._foreach_zero_(self._added_to)
        for part in parts:
            # From outside of a graph, which reads the keys where they lie.
            set_dropout_keys(self._model, self._config.seed, step, first_image=first_image)
            if self._model.is_own:
                seed_generators(self._config.seed, step, first_image)
            add(step, *part)
            first_image += size

    def release(self) -> None:
        """Give back the memory of the graph; the next step captures it again."""
        self._replay = None

    def _add(
        self, step: int | Tensor, images: Tensor, positions: Tensor, labels: Tensor | None
    ) -> None:
        """Add the gradient and the losses of some of this worker's images."""
        x_start, conditions = self._x_start(images, step, positions)
        t, noise, x_t = self._noisy_images(x_start, step, positions)
        with self._compute.autocast():
            output = self._forward(x_t, t, *self._conditions(labels, step, positions), **conditions)
        losses = self._diffusion.training_loss(output, x_start, x_t, t, noise)
        loss = losses.sum() / self._config.global_batch_size
        loss.backward()
        self._keep_losses(losses.detach(), t)

    def _add_other(
        self, step: int | Tensor, images: Tensor, positions: Tensor, labels: Tensor | None
    ) -> None:
        """Add the gradient and the losses of some images, of a family that has no timesteps."""
        del labels
        assert self._losses is not None  # noqa: S101 - or this was not chosen
        config = self._config
        x_start, _ = self._x_start(images, step, positions)
        losses = self._losses(self._model, x_start, config.seed, step, positions)
        loss = losses.sum() / config.global_batch_size
        loss.backward()
        self._parameters.extra[0] += loss.detach()

    def _conditions(
        self, labels: Tensor | None, step: int | Tensor, positions: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the labels that the network is conditioned on, some dropped; () without."""
        if labels is None:
            return ()
        share = self._config.label_dropout
        dropped = dropped_labels(self._config.seed, step, positions, share)
        return (labels.masked_fill(dropped, self._model.null_label),)

    def _noisy_images(
        self, x_start: Tensor, step: int | Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return t, the noise and x_t of a step."""
        seed, num_timesteps = self._config.seed, self._diffusion.num_timesteps
        t = training_timesteps(seed, step, positions, num_timesteps)
        noise = training_noise(seed, step, positions, self._model.image_shape)
        return t, noise, self._diffusion.q_sample(x_start, t, noise)

    def _x_start(
        self, images: Tensor, step: int | Tensor, positions: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return images as floats, some mirrored or augmented, and the conditions that follow."""
        x_start = to_float(images)
        if self._config.horizontal_flip:
            mirrored = flips(self._config.seed, step, positions)
            x_start = torch.where(mirrored[:, None, None, None], x_start.flip(3), x_start)
        if not self._config.augment:
            return x_start, {}
        seed, share = self._config.seed, self._config.augment
        x_start, applied = augmented(x_start, seed, step, positions, share)
        return x_start, {"augment": applied}

    def _keep_losses(self, losses: Tensor, t: Tensor) -> None:
        """Add the losses (B,) float32 of timesteps t (B,) int64, to the extra numbers."""
        quarters = t * NUM_QUARTERS // self._diffusion.num_timesteps
        in_quarter = quarters[:, None] == torch.arange(NUM_QUARTERS, device=self._device)
        extra = self._parameters.extra
        extra[0] += losses.sum() / self._config.global_batch_size
        extra[1 : 1 + NUM_QUARTERS] += losses @ in_quarter.float()
        extra[1 + NUM_QUARTERS : 1 + 2 * NUM_QUARTERS] += in_quarter.float().sum(dim=0)


class _Replay:
    """A function of step, images, positions and labels that adds to buffers, as one CUDA graph.

    The graph finds its inputs in the same place each time; they are copied there. The stream that
    it is captured on is also that of the warm-ups, in which the libraries took their memory.

    Args:
        function: What is captured.
        step: What the first calls, whose results count for nothing, are made with.
        images: (B, H, W, C) on the device; all later ones have this shape.
        positions: (B,) int64 on the device.
        labels: (B,) int64 on the device, or None, and then always.
    """

    def __init__(
        self,
        function: Callable[[Tensor, Tensor, Tensor, Tensor | None], None],
        step: int,
        images: Tensor,
        positions: Tensor,
        labels: Tensor | None,
    ) -> None:
        self._images, self._positions = images.clone(), positions.clone()
        self._labels = None if labels is None else labels.clone()
        self._step = torch.full((1,), step, dtype=torch.int64, device=images.device)
        inputs = (self._step, self._images, self._positions, self._labels)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_NUM_WARM_UPS):
                function(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads, such as that which pins the next images, may go on meanwhile.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            function(*inputs)

    def __call__(self, step: int, images: Tensor, positions: Tensor, labels: Tensor | None) -> None:
        self._images.copy_(images)
        self._positions.copy_(positions)
        if self._labels is not None and labels is not None:
            self._labels.copy_(labels)
        self._step.fill_(step)
        self._graph.replay()
