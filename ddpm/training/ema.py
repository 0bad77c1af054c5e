"""The exponential moving average of the weights, which is what images are drawn with."""

import torch
from torch import Tensor

from ddpm.config import TrainingConfig


def ema_decay_at(config: TrainingConfig, step: int, ema_decay: float | None = None) -> float:
    """Return the decay of an average after optimizer step `step`, counted from 0.

    With warm-up it is min(ema_decay, (1 + step) / (10 + step)), so that the initial weights do
    not weigh on the average of a short run.

    Args:
        config: Its `ema_warmup`, and the decay where none is given.
        step: The number of the step.
        ema_decay: Of a further average.
    """
    decay = config.ema_decay if ema_decay is None else ema_decay
    if not config.ema_warmup:
        return decay
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_ema(average: Tensor, values: Tensor, decay: float) -> None:
    """Set the average to decay * average + (1 - decay) * values, in place.

    Args:
        average: (P,) float32.
        values: (P,) float32, the weights after the optimizer's step.
        decay: In [0, 1).
    """
    average.lerp_(values, 1.0 - decay)
