"""The forward process, what is predicted, and the loss."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ddpm.settings.fields import CLOSED, Prediction, Variance, require, require_positive

Betas = Literal["linear", "cosine", "sigmoid", "scaled_linear"]
# Below, the last beta would reach 1.
_FEWEST_TIMESTEPS = {"linear": 21, "cosine": 2, "sigmoid": 2, "scaled_linear": 13}
_MIN_SNR_GAMMA = 5.0
_VLB_WEIGHT = 0.001


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The forward process, what the network predicts, and the loss.

    Attributes:
        num_timesteps: T, the length of the chain.
        betas: The schedule: "linear" (Ho et al. 2020: 1e-4 to 0.02, scaled by 1000/T), "cosine"
            (Nichol & Dhariwal 2021, eq. 17), "sigmoid" (Jabri et al. 2022, from -3 to 3) or
            "scaled_linear" (Rombach et al. 2022: roots from 0.00085 to 0.012, scaled by 1000/T).
        rescale_zero_snr: Rescale the schedule so that x_T is noise alone (Lin et al. 2023,
            algorithm 1). Not with prediction epsilon, which says nothing of x_0 there.
        prediction: What the network's output stands for; "v" is sqrt(alphas_cumprod) eps -
            sqrt(1 - alphas_cumprod) x_0 (Salimans & Ho 2022).
        variance: sigma_t^2 of the reverse process: "fixed_small" is the posterior variance,
            "fixed_large" is beta_t, and "learned" is what the network says between the two, for
            each pixel (Nichol & Dhariwal 2021, eq. 15).
        loss: "simple" is L_simple (Ho et al. 2020, eq. 14); "weighted" keeps the weight of the
            variational bound; "min_snr" weighs the error of x_0 by the signal-to-noise ratio, up to
            `min_snr_gamma` (Hang et al. 2023).
        min_snr_gamma: That limit.
        vlb_weight: With a learned variance the bound is added to the loss, times this and T:
            L_hybrid (Nichol & Dhariwal 2021, eq. 16).
    """

    __pydantic_config__: ClassVar[dict[str, object]] = CLOSED

    num_timesteps: int = 1000
    betas: Betas = "linear"
    rescale_zero_snr: bool = False
    prediction: Prediction = "epsilon"
    variance: Variance = "fixed_large"
    loss: Literal["simple", "weighted", "min_snr"] = "simple"
    min_snr_gamma: float = _MIN_SNR_GAMMA
    vlb_weight: float = _VLB_WEIGHT

    def __post_init__(self) -> None:
        is_one_step = self.betas == "cosine" and self.prediction == "x_start"
        lowest = 1 if is_one_step else _FEWEST_TIMESTEPS[self.betas]
        require(
            self.num_timesteps >= lowest,
            "num_timesteps",
            self.num_timesteps,
            f"at least {lowest} with {self.betas} betas",
        )
        require(
            not (self.rescale_zero_snr and self.prediction == "epsilon"),
            "rescale_zero_snr",
            self.rescale_zero_snr,
            "false with prediction epsilon, which says nothing of x_0 where there is no signal",
        )
        require_positive(self, "min_snr_gamma", "vlb_weight")
        self._check_unused()

    @property
    def outputs_per_channel(self) -> int:
        """Channels of the network's output for each of the image's: 2 with a learned variance."""
        return 2 if self.variance == "learned" else 1

    def _check_unused(self) -> None:
        """Refuse numbers that nothing would read, and a loss whose variance is not yet known."""
        require(
            self.loss == "min_snr" or self.min_snr_gamma == _MIN_SNR_GAMMA,
            "min_snr_gamma",
            self.min_snr_gamma,
            f"left out with loss {self.loss}, which has no such limit",
        )
        is_learned = self.variance == "learned"
        require(
            is_learned or self.vlb_weight == _VLB_WEIGHT,
            "vlb_weight",
            self.vlb_weight,
            f"left out with variance {self.variance}, which is not learned",
        )
        require(
            not (is_learned and self.loss == "weighted"),
            "loss",
            self.loss,
            "simple or min_snr with variance learned, which has the bound in its loss anyway",
        )


ONE_STEP = DiffusionConfig(num_timesteps=1, betas="cosine", prediction="x_start")
"""Of families that draw in one step from noise alone: T = 1, and the network gives x_0 itself."""
