"""The gradient of one step's loss; on a GPU as one CUDA graph, captured once and then replayed.

A step of the CIFAR-10 network is some two thousand small kernels, more than a host can launch while
a GPU runs them. Replayed, they are one launch, and they are the same kernels: no bit changes.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm.compute import ComputeDecision
from ddpm.config import TrainingConfig
from ddpm.data import to_float
from ddpm.diffusion import GaussianDiffusion
from ddpm.dropout import set_dropout_keys
from ddpm.flat import FlatParameters
from ddpm.noise import flips, training_noise, training_timesteps
from ddpm.unet import UNet

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
    """

    def __init__(
        self,
        *,
        model: UNet,
        forward: Callable[[Tensor, Tensor], Tensor],
        parameters: FlatParameters,
        diffusion: GaussianDiffusion,
        config: TrainingConfig,
        compute: ComputeDecision,
        positions: NDArray[np.int64],
    ) -> None:
        self._model = model
        self._forward = forward
        self._parameters = parameters
        self._diffusion = diffusion
        self._config = config
        self._compute = compute
        self._first_image = int(positions[0])
        self._device = compute.device
        self._positions = torch.from_numpy(positions).to(self._device)
        channels, height, width = model.image_shape
        # What a graph reads: each replay finds its inputs in the same place.
        self._images = torch.empty(
            (len(positions), height, width, channels), dtype=torch.uint8, device=self._device
        )
        self._step = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def compute(self, images: Tensor, step: int) -> None:
        """Set the gradients, and the extra numbers but the last, to this worker's part of them.

        Args:
            images: (B, H, W, C) uint8 on the device.
            step: Steps taken before this one.
        """
        set_dropout_keys(self._model, self._config.seed, step, first_image=self._first_image)
        if self._device.type != "cuda":
            self._run(images, step)
            return
        self._images.copy_(images)
        self._step.fill_(step)
        if self._graph is None:
            self._graph = self._captured()
        self._graph.replay()

    def _captured(self) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_NUM_WARM_UPS):
                self._run(self._images, self._step)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as that which pins the next images, may go on meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self._run(self._images, self._step)
        return graph

    def _run(self, images: Tensor, step: int | Tensor) -> None:
        self._parameters.grads.zero_()
        x_start, t, noise, x_t = self._noisy_images(images, step)
        with self._compute.autocast():
            output = self._forward(x_t, t)
        losses = self._diffusion.training_loss(output, x_start, x_t, t, noise)
        loss = losses.sum() / self._config.global_batch_size
        loss.backward()  # type: ignore[no-untyped-call]
        self._keep_losses(losses.detach(), t)

    def _noisy_images(
        self, images: Tensor, step: int | Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return x_0, t, the noise and x_t of a step."""
        seed, num_timesteps = self._config.seed, self._diffusion.num_timesteps
        x_start = to_float(images)
        if self._config.horizontal_flip:
            mirrored = flips(seed, step, self._positions)
            x_start = torch.where(mirrored[:, None, None, None], x_start.flip(3), x_start)
        t = training_timesteps(seed, step, self._positions, num_timesteps)
        noise = training_noise(seed, step, self._positions, self._model.image_shape)
        return x_start, t, noise, self._diffusion.q_sample(x_start, t, noise)

    def _keep_losses(self, losses: Tensor, t: Tensor) -> None:
        quarters = t * NUM_QUARTERS // self._diffusion.num_timesteps
        in_quarter = quarters[:, None] == torch.arange(NUM_QUARTERS, device=self._device)
        extra = self._parameters.extra
        extra[0] = losses.sum() / self._config.global_batch_size
        extra[1 : 1 + NUM_QUARTERS] = losses @ in_quarter.float()
        extra[1 + NUM_QUARTERS : 1 + 2 * NUM_QUARTERS] = in_quarter.float().sum(dim=0)
