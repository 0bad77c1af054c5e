"""Training: one step, and the loop that yields what each step measured.

The caller saves, logs and stops; nothing here knows where the numbers go. A step is a pure
function of the state, the step's number and the images: the order of the images, t, the noise and
the flips come from (seed, step, position in the global batch), and dropout from the same.
So a run that is resumed from a checkpoint takes the same steps, bit for bit.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ddpm.adam import VectorAdam
from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, TrainingConfig, UNetConfig
from ddpm.data import BatchOrder, BatchReader, ImageDataset, rank_positions, to_float
from ddpm.diffusion import GaussianDiffusion
from ddpm.dropout import set_dropout_keys
from ddpm.ema import ema_decay_at, update_ema
from ddpm.flat import FlatParameters
from ddpm.noise import flips, training_noise, training_timesteps
from ddpm.unet import UNet

_NUM_QUARTERS = 4
# Behind the gradients in the all-reduce: the loss, its sum and the number of images in each
# quarter of t, and how many workers were asked to stop.
_NUM_EXTRA = 1 + 2 * _NUM_QUARTERS + 1
_CLIP_EPS = 1e-6


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient is not a finite number: the run has diverged."""

    def __init__(self, step: int, loss: float, grad_norm: float) -> None:
        super().__init__(step, loss, grad_norm)
        self.step = step
        self.loss = loss
        self.grad_norm = grad_norm

    def __str__(self) -> str:
        return f"at step {self.step} the loss is {self.loss} and its gradient {self.grad_norm}"


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """What one step measured, over all workers.

    Attributes:
        step: Steps taken, this one included.
        loss: Mean over the global batch.
        loss_by_quarter: Mean over the images whose t is in each quarter of [0, T), the earliest
            first; None where there was no such image.
        grad_norm: L2 norm of the gradient before clipping.
        learning_rate: Of this step.
        images_per_s: Images of the global batch per second of this step.
        data_wait_s: Seconds this worker waited for its images.
    """

    step: int
    loss: float
    loss_by_quarter: tuple[float | None, ...]
    grad_norm: float
    learning_rate: float
    images_per_s: float
    data_wait_s: float


class TrainState:
    """All that changes while training, and the configuration that it is for.

    Attributes:
        model: The network that is trained; its parameters live in `parameters`.
        forward: The same, compiled if that was decided.
        parameters: Their values and gradients, one vector each.
        ema: (P,) float32, the moving average of `parameters.values`.
        optimizer: Adam or AdamW over `parameters.values`, with its two averages.
        step: Steps taken.
    """

    def __init__(
        self,
        *,
        unet_config: UNetConfig,
        diffusion_config: DiffusionConfig,
        config: TrainingConfig,
        image_shape: tuple[int, int, int],
        compute: ComputeDecision,
    ) -> None:
        self.diffusion_config = diffusion_config
        self.config = config
        self.compute = compute
        self.step = 0
        self.model = UNet(unet_config, image_shape, seed=config.seed)
        compute.place(self.model)
        self.forward: Callable[[Tensor, Tensor], Tensor] = compute.network(self.model)
        self.parameters = FlatParameters(self.model, num_extra=_NUM_EXTRA)
        self.ema = self.parameters.values.clone()
        self.optimizer = VectorAdam(config, self.parameters.values)


def learning_rate_at(config: TrainingConfig, step: int) -> float:
    """Return the learning rate of step `step`, counted from 0: a linear rise, then constant."""
    if step + 1 >= config.lr_warmup_steps:
        return config.learning_rate
    return config.learning_rate * (step + 1) / config.lr_warmup_steps


@dataclass(frozen=True)
class _Measured:
    """The numbers of one step, perhaps still on their way from the device."""

    step: int
    numbers: Tensor  # (_NUM_EXTRA + 1,) float32 on the CPU: the extra, then the gradient's norm
    arrived: torch.cuda.Event | None
    learning_rate: float
    data_wait_s: float


class _Trainer:
    """What stays the same from step to step: the worker's place, the batches, the diffusion."""

    def __init__(self, state: TrainState, dataset: ImageDataset) -> None:
        config = state.config
        self.state = state
        rank, self.world_size = _rank_and_world_size()
        positions = rank_positions(config.global_batch_size, rank, self.world_size)
        self.first_image = int(positions[0])
        order = BatchOrder(len(dataset), config.global_batch_size, config.seed)
        self.device = state.compute.device
        self.positions = torch.from_numpy(positions).to(self.device)
        self.reader = BatchReader(dataset, order, positions, self.device)
        self.diffusion = GaussianDiffusion(state.diffusion_config).to(self.device)
        state.model.train()

    def step(self, stop_requested: bool) -> _Measured:
        """Take one step and return its numbers, which may still be on their way."""
        state = self.state
        started_at = time.perf_counter()
        images = self.reader.images(state.step)
        data_wait_s = time.perf_counter() - started_at
        state.parameters.grads.zero_()
        self._backward(images, stop_requested)
        if self.world_size > 1:
            dist.all_reduce(state.parameters.grads)
        learning_rate = learning_rate_at(state.config, state.step)
        grad_norm = _update(state, learning_rate)
        state.step += 1
        numbers = torch.cat([state.parameters.extra, grad_norm[None]])
        numbers, arrived = _start_copy_to_cpu(numbers)
        return _Measured(state.step, numbers, arrived, learning_rate, data_wait_s)

    def _backward(self, images: Tensor, stop_requested: bool) -> None:
        """Add this worker's part of the gradient, and of the extra numbers, to the buffer."""
        state, config = self.state, self.state.config
        x_start = to_float(images)
        if config.horizontal_flip:
            mirrored = flips(config.seed, state.step, self.positions)
            x_start = torch.where(mirrored[:, None, None, None], x_start.flip(3), x_start)
        num_timesteps = self.diffusion.num_timesteps
        t = training_timesteps(config.seed, state.step, self.positions, num_timesteps)
        shape = state.model.image_shape
        noise = training_noise(config.seed, state.step, self.positions, shape)
        x_t = self.diffusion.q_sample(x_start, t, noise)
        set_dropout_keys(state.model, config.seed, state.step, first_image=self.first_image)
        with state.compute.autocast():
            output = state.forward(x_t, t)
        losses = self.diffusion.training_loss(output, x_start, x_t, t, noise)
        (losses.sum() / config.global_batch_size).backward()  # type: ignore[no-untyped-call]
        quarters = t * _NUM_QUARTERS // num_timesteps
        in_quarter = (quarters[:, None] == torch.arange(_NUM_QUARTERS, device=self.device)).float()
        losses = losses.detach()
        extra = state.parameters.extra
        extra[0] = losses.sum() / config.global_batch_size
        extra[1 : 1 + _NUM_QUARTERS] = losses @ in_quarter
        extra[1 + _NUM_QUARTERS : 1 + 2 * _NUM_QUARTERS] = in_quarter.sum(dim=0)
        extra[-1] = float(stop_requested)


def train_steps(
    state: TrainState,
    dataset: ImageDataset,
    *,
    until_step: int,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Iterator[StepMetrics]:
    """Train until a step, or until any worker was asked to stop.

    On a GPU the metrics of a step come when the next one has been started, so that the device
    never waits for the host. When the iterator ends, `state` stands after the last step that was
    yielded and all its numbers were seen to be finite: that is the time to save it. With several
    workers (torch.distributed is initialised) all of them stop after the same step.

    Args:
        state: Changed in place.
        dataset: The training images, the same on every worker.
        until_step: Number of steps that `state` shall have taken.
        stop_requested: Asked before each step.

    Yields:
        One StepMetrics a step.

    Raises:
        ConfigError: The workers do not divide the global batch.
        NonFiniteLossError: The loss or the gradient is not finite; `state` is then worthless.
    """
    trainer = _Trainer(state, dataset)
    depth = 1 if state.compute.device_kind == "cuda" else 0
    pending: list[_Measured] = []
    stopping = False
    resumed_at = time.perf_counter()
    with trainer.reader:
        while pending or (state.step < until_step and not stopping):
            if state.step < until_step and not stopping:
                pending.append(trainer.step(stop_requested()))
                if len(pending) <= depth:
                    continue
            measured = pending.pop(0)
            numbers = _wait_for(measured)
            stopping = stopping or numbers[-2] > 0
            elapsed_s = time.perf_counter() - resumed_at
            yield _metrics(measured, numbers, state.config.global_batch_size / elapsed_s)
            resumed_at = time.perf_counter()


def _rank_and_world_size() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


@torch.no_grad()
def _update(state: TrainState, learning_rate: float) -> Tensor:
    """Clip, let the optimizer step, move the average; return the gradient's norm, unclipped."""
    grads = state.parameters.parameter_grads
    grad_norm: Tensor = torch.linalg.vector_norm(grads)
    if state.config.grad_clip_norm > 0:
        grads.mul_((state.config.grad_clip_norm / (grad_norm + _CLIP_EPS)).clamp(max=1.0))
    state.optimizer.step(state.parameters.values, grads, learning_rate)
    update_ema(state.ema, state.parameters.values, ema_decay_at(state.config, state.step))
    return grad_norm


def _start_copy_to_cpu(numbers: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    if numbers.device.type != "cuda":
        return numbers, None
    copied = torch.empty_like(numbers, device="cpu", pin_memory=True)
    copied.copy_(numbers, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return copied, arrived


def _wait_for(measured: _Measured) -> list[float]:
    if measured.arrived is not None:
        measured.arrived.synchronize()
    numbers: list[float] = measured.numbers.tolist()
    return numbers


def _metrics(measured: _Measured, numbers: list[float], images_per_s: float) -> StepMetrics:
    loss, *rest, _num_stopping, grad_norm = numbers
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise NonFiniteLossError(measured.step, loss, grad_norm)
    sums, counts = rest[:_NUM_QUARTERS], rest[_NUM_QUARTERS:]
    return StepMetrics(
        step=measured.step,
        loss=loss,
        loss_by_quarter=tuple(s / n if n else None for s, n in zip(sums, counts, strict=True)),
        grad_norm=grad_norm,
        learning_rate=measured.learning_rate,
        images_per_s=images_per_s,
        data_wait_s=measured.data_wait_s,
    )
