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

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, NetworkConfig, TrainingConfig
from ddpm.errors import NonFiniteLossError
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.training.adam import VectorAdam
from ddpm.training.data import BatchReader, ImageDataset
from ddpm.training.ema import ema_decay_at, update_ema
from ddpm.training.families import FAMILIES, build_model
from ddpm.training.flat import FlatParameters
from ddpm.training.gradient import NUM_EXTRA, NUM_QUARTERS, LossGradient
from ddpm.training.learning_rate import learning_rate_at
from ddpm.training.order import rank_positions

_CLIP_EPS = 1e-6


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
        family: What sets the family of the model apart.
        model: The network that is trained; its parameters live in `parameters`.
        forward: The same, compiled if that was decided.
        parameters: Their values and gradients, one vector each.
        ema: (P,) float32, the moving average of `parameters.values`.
        further_emas: The same with the decays of `config.ema_decays`, by their names.
        optimizer: Adam or AdamW over `parameters.values`, with its two averages.
        step: Steps taken.
    """

    def __init__(
        self,
        *,
        unet_config: NetworkConfig,
        diffusion_config: DiffusionConfig,
        config: TrainingConfig,
        image_shape: tuple[int, int, int],
        compute: ComputeDecision,
    ) -> None:
        self.diffusion_config = diffusion_config
        self.config = config
        self.compute = compute
        self.step = 0
        self.family = FAMILIES[unet_config.family]
        self.model = build_model(unet_config, diffusion_config, image_shape, seed=config.seed)
        compute.place(self.model)
        self.model.recompute_activations(config.activation_checkpointing)
        self.forward: Callable[..., Tensor] = compute.network(self.model)
        self.parameters = FlatParameters(self.model, num_extra=NUM_EXTRA)
        self.ema = self.parameters.values.clone()
        self.further_emas = {name: self.ema.clone() for name in config.further_averages}
        self.optimizer = VectorAdam(config, self.parameters.values, self.family.adam_betas)
        self._gradient: LossGradient | None = None

    def gradient_at(self, positions: NDArray[np.int64]) -> LossGradient:
        """Return what computes the gradient of a worker's images; it is made once.

        Args:
            positions: (B,), their places in the global batch; a worker keeps the first ones.
        """
        if self._gradient is None:
            self._gradient = LossGradient(
                model=self.model,
                forward=self.forward,
                parameters=self.parameters,
                diffusion=GaussianDiffusion(self.diffusion_config).to(self.compute.device),
                config=self.config,
                compute=self.compute,
                positions=positions,
                losses=self.family.losses,
            )
        return self._gradient

    def release(self) -> None:
        """Give back the memory that only further steps would need."""
        if self._gradient is not None:
            self._gradient.release()


@dataclass(frozen=True)
class _Measured:
    """The numbers of one step, perhaps still on their way from the device."""

    step: int
    numbers: Tensor  # (NUM_EXTRA + 1,) float32 on the CPU: the extra, then the gradient's norm
    arrived: torch.cuda.Event | None
    learning_rate: float
    data_wait_s: float


class _Trainer:
    """What stays the same from step to step: the worker's place, the batches, the gradient."""

    def __init__(self, state: TrainState, dataset: ImageDataset) -> None:
        config = state.config
        self.state = state
        rank, self.world_size = _rank_and_world_size()
        positions = rank_positions(config.global_batch_size, rank, self.world_size)
        order = dataset.order(config.global_batch_size, config.seed)
        self.reader = BatchReader(dataset, order, positions, state.compute.device)
        self.gradient = state.gradient_at(positions)
        state.model.train()

    def step(self, stop_requested: bool) -> _Measured:
        """Take one step and return its numbers, which may still be on their way."""
        state = self.state
        started_at = time.perf_counter()
        batch = self.reader.batch(state.step)
        data_wait_s = time.perf_counter() - started_at
        self.gradient.set_gradients(batch.images, state.step, batch.labels)
        state.parameters.extra[-1].fill_(float(stop_requested))
        if self.world_size > 1:
            dist.all_reduce(state.parameters.grads)
        learning_rate = learning_rate_at(state.config, state.step)
        grad_norm = _update(state, learning_rate)
        state.step += 1
        numbers = torch.cat([state.parameters.extra, grad_norm[None]])
        numbers, arrived = _start_copy_to_cpu(numbers)
        return _Measured(state.step, numbers, arrived, learning_rate, data_wait_s)


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
        ConfigError: The workers do not divide the global batch, or the microbatch not their share.
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
    grad_norm = torch.dot(grads, grads).sqrt()  # in half the time of linalg.vector_norm on a CPU
    if state.config.grad_clip_norm > 0:
        factor = state.config.grad_clip_norm / (grad_norm + _CLIP_EPS)
        if state.compute.device_kind == "cuda" or factor < 1.0:  # a GPU would have to be waited for
            grads.mul_(factor.clamp(max=1.0))
    state.optimizer.step(state.parameters.values, grads, learning_rate)
    update_ema(state.ema, state.parameters.values, ema_decay_at(state.config, state.step))
    for name, decay in state.config.further_averages.items():
        decay = ema_decay_at(state.config, state.step, decay)
        update_ema(state.further_emas[name], state.parameters.values, decay)
    return grad_norm


def _start_copy_to_cpu(numbers: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    if numbers.device.type != "cuda":
        return numbers, None
    copied = torch.empty_like(numbers, device="cpu", pin_memory=True)
    copied.copy_(numbers, non_blocking=True)
    arrived = torch.cuda.Event()
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
    sums, counts = rest[:NUM_QUARTERS], rest[NUM_QUARTERS:]
    return StepMetrics(
        step=measured.step,
        loss=loss,
        loss_by_quarter=tuple(s / n if n else None for s, n in zip(sums, counts, strict=True)),
        grad_norm=grad_norm,
        learning_rate=measured.learning_rate,
        images_per_s=images_per_s,
        data_wait_s=measured.data_wait_s,
    )
