"""Adam and AdamW on one vector.

torch's functional form, since its optimizer classes import the compiler: a second and more of each
start, also of those that compile nothing.
"""

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from ddpm.config import TrainingConfig

MOMENTS = ("exp_avg", "exp_avg_sq")
_EPS = 1e-8


class VectorAdam:
    """Kingma & Ba 2015, algorithm 1, or Loshchilov & Hutter 2019, algorithm 2, fused.

    Args:
        config: Which of them, and AdamW's weight decay.
        weights: (P,) float32, what it will change; gives size and device.
        betas: Of the averages of the gradient and of its square.

    Attributes:
        moments: By the names in MOMENTS, (P,) float32 each: the averages of the gradient and of
            its square.
        num_steps: () float32 on the weights' device: steps taken.
    """

    def __init__(
        self,
        config: TrainingConfig,
        weights: Tensor,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self.moments = {name: torch.zeros_like(weights) for name in MOMENTS}
        self.num_steps = torch.zeros((), device=weights.device)
        self._update = adamw if config.optimizer == "adamw" else adam
        self._weight_decay = config.weight_decay
        self._beta1, self._beta2 = betas

    @torch.no_grad()
    def step(self, weights: Tensor, grads: Tensor, learning_rate: float) -> None:
        """Take one step.

        Args:
            weights: (P,) float32, changed in place.
            grads: Like weights.
            learning_rate: Of this step.
        """
        exp_avg, exp_avg_sq = (self.moments[name] for name in MOMENTS)
        self._update(
            [weights],
            [grads],
            [exp_avg],
            [exp_avg_sq],
            [],
            [self.num_steps],
            fused=True,
            amsgrad=False,
            beta1=self._beta1,
            beta2=self._beta2,
            lr=learning_rate,
            weight_decay=self._weight_decay,
            eps=_EPS,
            maximize=False,
        )
