"""The learning rate of each step: a linear rise, then a schedule."""

import math

from ddpm.config import TrainingConfig


def learning_rate_at(config: TrainingConfig, step: int) -> float:
    """Return the learning rate of step `step`, counted from 0.

    The rise ends at the peak with step lr_warmup_steps - 1. From there "cosine" and "linear" would
    reach 0 with step num_steps, which is never taken, so that every step counts.
    """
    warmup, peak = config.lr_warmup_steps, config.learning_rate
    if step + 1 < warmup:
        return peak * (step + 1) / warmup
    if config.lr_schedule == "inverse_sqrt":
        return peak * math.sqrt(warmup / (step + 1))
    share = max(0, step - warmup) / max(1, config.num_steps - warmup)
    if config.lr_schedule == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * share))
    return peak * (1.0 - share) if config.lr_schedule == "linear" else peak
