"""How images are drawn."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ddpm.settings.fields import CLOSED, Precision, Variance, require, require_positive

Method = Literal["ddpm", "ddim", "dpm++2m", "dpm++2m_sde", "heun"]
Spacing = Literal[
    "linear",
    "quadratic",
    "logsnr",
    "karras",
    "ddim_linear",
    "ddim_quadratic",
    "improved_linear",
]


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How images are drawn with the reverse process.

    Attributes:
        method: "ddpm" (Ho et al. 2020, algorithm 2), "ddim" (Song et al. 2020), "dpm++2m" and
            "dpm++2m_sde" (Lu et al. 2022), or "heun" (Karras et al. 2022, algorithm 1, without
            its noise), which asks the network twice a step.
        num_steps: Reverse steps; fewer than T respace the chain.
        eta: Stochasticity of ddim: 0 is deterministic, 1 has the posterior variance.
        spacing: How the steps are chosen among the T: "linear" and "quadratic" run from 0 to
            T - 1, as do "logsnr", even in the logarithm of the signal-to-noise ratio, and "karras"
            (Karras et al. 2022, eq. 5), each as near as whole timesteps come. To repeat published
            tables, "ddim_linear" and "ddim_quadratic" choose as the code of Song et al. 2020 does,
            "improved_linear" as that of Nichol & Dhariwal 2021.
        variance: sigma_t^2 of ddpm; None takes the model's for the whole chain, and "fixed_small"
            for a shorter one, where "fixed_large" leaves far more noise. A learned one stays.
        labels: The classes of the images, of a model that knows some: "balanced" (which None is)
            gives image k class k mod their number, a mapping so many images of each class, one
            behind the other, a list its k-th entry again and again; "none" tells the model none.
            Classes go by name or number.
        guidance_scale: output = without label + scale (with label - without): 1 is no guidance, and
            more draws images that are plainer of their class, and less various.
        guidance_interval: The share of the T timesteps within which there is guidance, as
            [lowest, highest] in [0, 1]; None for all (Kynkaanniemi et al. 2024).
        clip_denoised: Clip the predicted x_0 to [-1, 1] at every step.
        keep_epsilon: Where x_0 is clipped, ddim goes on with the network's own noise, as diffusers
            does, and not with the one that belongs to the clipped x_0.
        seed: Seed of the noise. Image k depends on it and on k.
        microbatch_size: Images that go through the network together. Part of what fixes the bits.
        precision: "bf16" holds the weights in bfloat16; "auto" takes what is fastest on the job's
            machine.
        compile: Whether the network is compiled; "auto" takes the AMX kernels where they fit, else
            weighs the compile time against the work.
        trajectory: Number of the first images whose way from x_T to x_0 is kept as a film strip.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = CLOSED

    method: Method = "ddpm"
    num_steps: int = 1000
    eta: float = 0.0
    spacing: Spacing = "linear"
    variance: Variance | None = None
    labels: Literal["balanced", "none"] | dict[str, int] | tuple[str | int, ...] | None = None
    guidance_scale: float = 1.0
    guidance_interval: tuple[float, float] | None = None
    clip_denoised: bool = True
    keep_epsilon: bool = False
    seed: int = 0
    microbatch_size: int = 128
    precision: Precision = "auto"
    compile: bool | Literal["auto"] = "auto"
    trajectory: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "num_steps", "microbatch_size")
        for field in ("seed", "trajectory"):
            value = getattr(self, field)
            require(value >= 0, field, value, "0 or more")
        require(0.0 <= self.eta <= 1.0, "eta", self.eta, "in [0, 1]")
        require(self.seed < 2**63, "seed", self.seed, "below 2**63")
        self._check_method()
        self._check_labels()

    @property
    def images_per_pass(self) -> int:
        """Images that go through the network together: with guidance each of them twice."""
        return self.microbatch_size * (1 if self.guidance_scale == 1.0 else 2)

    @property
    def num_evaluations(self) -> int:
        """How often a chain asks the network; where timesteps meet, fewer times."""
        return 2 * self.num_steps - 1 if self.method == "heun" else self.num_steps

    def _check_labels(self) -> None:
        labels, scale, interval = self.labels, self.guidance_scale, self.guidance_interval
        require(labels != {} and labels != (), "labels", labels, "left out, or of some class")
        if isinstance(labels, dict):
            some = all(count > 0 for count in labels.values())
            require(some, "labels", labels, "numbers of images greater than 0, by class")
        require(scale >= 0.0, "guidance_scale", scale, "0 or more; 1 is no guidance")
        can_guide = labels != "none" or scale == 1.0
        require(can_guide, "guidance_scale", scale, "1 with labels none")
        if interval is not None:
            is_some = 0.0 <= interval[0] < interval[1] <= 1.0
            require(is_some, "guidance_interval", interval, "[lowest, highest] within [0, 1]")
            used = scale != 1.0
            require(used, "guidance_interval", interval, "left out with a guidance_scale of 1")

    def _check_method(self) -> None:
        """Refuse what the method would not read."""
        method = self.method
        fewest = 1 if method in ("ddpm", "ddim") else 2
        require(
            self.num_steps >= fewest,
            "num_steps",
            self.num_steps,
            f"at least {fewest} with method {method}",
        )
        require(method == "ddim" or self.eta == 0.0, "eta", self.eta, f"0 with method {method}")
        require(
            method in ("ddpm", "ddim") or self.variance is None,
            "variance",
            self.variance,
            f"left out with method {method}: ddpm alone has one",
        )
        require(
            method == "ddim" or not self.keep_epsilon,
            "keep_epsilon",
            self.keep_epsilon,
            f"false with method {method}: it is a way of ddim",
        )
        require(
            self.clip_denoised or not self.keep_epsilon,
            "keep_epsilon",
            self.keep_epsilon,
            "false where nothing is clipped",
        )
