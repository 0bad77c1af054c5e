"""The numbers that describe a model, a diffusion, a training run and a sampler.

This is the home of every default of the mathematics. A value that is out of range raises
`ConfigError`, which names the field, so that whoever read it from a file can point at the line.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Precision = Literal["auto", "bf16", "float32"]
Prediction = Literal["epsilon", "x_start", "mean"]
Variance = Literal["fixed_small", "fixed_large"]
Spacing = Literal["linear", "quadratic", "ddim_linear", "ddim_quadratic", "improved_linear"]

MAX_IMAGE_CHANNELS = 64

_CLOSED: dict[str, Any] = {"extra": "forbid", "allow_inf_nan": False, "strict": True}


class ConfigError(ValueError):
    """A field of a configuration holds a value that it must not hold."""

    def __init__(self, field: str, value: object, requirement: str) -> None:
        super().__init__(field, value, requirement)
        self.field = field
        self.value = value
        self.requirement = requirement

    def __str__(self) -> str:
        return f"{self.field} must be {self.requirement}, not {self.value!r}"


def _require(holds: bool, field: str, value: object, requirement: str) -> None:
    if not holds:
        raise ConfigError(field, value, requirement)


def _require_positive(config: object, *fields: str) -> None:
    for field in fields:
        value = getattr(config, field)
        _require(value > 0, field, value, "greater than 0")


def check_precision(precision: Precision, prediction: Prediction, field: str = "precision") -> None:
    """Raise ConfigError where bfloat16 would throw away what the network predicts."""
    _require(
        precision != "bf16" or prediction != "mean",
        field,
        precision,
        "float32 (or auto) with prediction mean, whose x_0 bfloat16 would round away",
    )


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The sizes of a U-Net; the defaults are the CIFAR-10 model of Ho et al. 2020, appendix B.

    Attributes:
        channels: Width of the first level.
        channel_multipliers: Width of each level as a multiple of `channels`; every level but the
            last halves height and width.
        num_res_blocks: Residual blocks of a level on the way down (one more on the way up).
        attention_resolutions: Heights (in pixels) of the levels that have self-attention. The
            middle of the U-Net always has it.
        num_heads: Attention heads of every level.
        attention_head_dim: Channels of a head, so that the number of heads varies by level, as in
            diffusers; None takes `num_heads`.
        norm_eps: What group norm adds to the variance: 1e-6 in Ho's code, 1e-5 in torch.
        dropout: Probability of dropout in each residual block, in [0, 1).
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _CLOSED

    channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 2)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    num_heads: int = 1
    attention_head_dim: int | None = None
    norm_eps: float = 1e-6
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _require_positive(self, "channels", "num_res_blocks", "num_heads", "norm_eps")
        _require(self.channels % 2 == 0, "channels", self.channels, "even")
        multipliers = self.channel_multipliers
        _require(
            len(multipliers) > 0 and min(multipliers) > 0,
            "channel_multipliers",
            multipliers,
            "a list of numbers greater than 0",
        )
        _require(
            all(size > 0 for size in self.attention_resolutions),
            "attention_resolutions",
            self.attention_resolutions,
            "a list of heights greater than 0",
        )
        self._check_heads()
        _require(0.0 <= self.dropout < 1.0, "dropout", self.dropout, "in [0, 1)")

    def _check_heads(self) -> None:
        widths = [self.channels * multiplier for multiplier in self.channel_multipliers]
        divides = "a divisor of the channels of every level"
        _require(
            all(width % self.num_heads == 0 for width in widths),
            "num_heads",
            self.num_heads,
            divides,
        )
        size = self.attention_head_dim
        if size is not None:
            fits = size > 0 and all(width % size == 0 for width in widths)
            _require(fits, "attention_head_dim", size, divides)
            _require(self.num_heads == 1, "num_heads", self.num_heads, "1 with attention_head_dim")

    def num_heads_of(self, channels: int) -> int:
        """Return the attention heads of a level of so many channels."""
        return channels // self.attention_head_dim if self.attention_head_dim else self.num_heads

    def check_image_shape(self, image_shape: tuple[int, int, int]) -> None:
        """Raise ConfigError unless a U-Net of these sizes takes (C, H, W) images."""
        channels, height, width = image_shape
        _require(
            1 <= channels <= MAX_IMAGE_CHANNELS,
            "image channels",
            channels,
            f"1 to {MAX_IMAGE_CHANNELS}",
        )
        levels = len(self.channel_multipliers)
        divisor = 2 ** (levels - 1)
        _require(
            height > 0 and width > 0 and height % divisor == 0 and width % divisor == 0,
            "image size",
            f"{height}x{width}",
            f"divisible by {divisor}, since channel_multipliers has {levels} levels",
        )


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The forward process, what the network predicts, and the loss.

    Attributes:
        num_timesteps: T, the length of the chain.
        betas: The schedule: "linear" (Ho et al. 2020: 1e-4 to 0.02, scaled by 1000/T) or "cosine"
            (Nichol & Dhariwal 2021, eq. 17).
        prediction: What the network's output stands for.
        variance: sigma_t^2 of the reverse process: "fixed_small" is the posterior variance,
            "fixed_large" is beta_t.
        loss: "simple" is L_simple (Ho et al. 2020, eq. 14); "weighted" keeps the weight of the
            variational bound.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _CLOSED

    num_timesteps: int = 1000
    betas: Literal["linear", "cosine"] = "linear"
    prediction: Prediction = "epsilon"
    variance: Variance = "fixed_large"
    loss: Literal["simple", "weighted"] = "simple"

    def __post_init__(self) -> None:
        lowest = 21 if self.betas == "linear" else 2
        _require(
            self.num_timesteps >= lowest,
            "num_timesteps",
            self.num_timesteps,
            f"at least {lowest} with {self.betas} betas",
        )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run.

    Attributes:
        num_steps: Optimizer steps.
        global_batch_size: Images of one step over all workers; the workers must divide it.
        learning_rate: Peak learning rate.
        lr_warmup_steps: Steps over which the learning rate rises linearly from 0.
        optimizer: "adam" or "adamw".
        weight_decay: Decoupled weight decay, "adamw" only.
        grad_clip_norm: Largest norm of the gradient; 0 switches clipping off.
        ema_decay: Decay of the moving average of the weights, in [0, 1).
        ema_warmup: Use min(ema_decay, (1 + step) / (10 + step)), so that short runs have an
            average of their own weights and not of their initial ones.
        horizontal_flip: Mirror every second image on average; wrong for digits and letters.
        precision: "bf16" is autocast; "auto" takes what is fastest on the job's machine.
        compile: Whether the step is compiled; "auto" takes the AMX kernels where they fit, else
            weighs the compile time against the work.
        seed: Seed of the initial weights, the order of the images, t, the noise and the dropout.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _CLOSED

    num_steps: int
    global_batch_size: int = 128
    learning_rate: float = 2e-4
    lr_warmup_steps: int = 0
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: float = 0.0
    grad_clip_norm: float = 1.0
    ema_decay: float = 0.9999
    ema_warmup: bool = True
    horizontal_flip: bool = False
    precision: Precision = "auto"
    compile: bool | Literal["auto"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        _require_positive(self, "num_steps", "global_batch_size", "learning_rate")
        for field in ("lr_warmup_steps", "weight_decay", "grad_clip_norm", "seed"):
            value = getattr(self, field)
            _require(value >= 0, field, value, "0 or more")
        _require(
            self.optimizer == "adamw" or self.weight_decay == 0.0,
            "weight_decay",
            self.weight_decay,
            "0 with optimizer adam (adamw decays)",
        )
        _require(0.0 <= self.ema_decay < 1.0, "ema_decay", self.ema_decay, "in [0, 1)")
        _require(self.seed < 2**63, "seed", self.seed, "below 2**63")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How images are drawn with the reverse process.

    Attributes:
        method: "ddpm" (Ho et al. 2020, algorithm 2) or "ddim" (Song et al. 2020).
        num_steps: Reverse steps; fewer than T respace the chain.
        eta: Stochasticity of ddim: 0 is deterministic, 1 has the posterior variance.
        spacing: How the steps are chosen among the T: "linear" and "quadratic" run from 0 to
            T - 1. To repeat published tables, "ddim_linear" and "ddim_quadratic" choose as the
            code of Song et al. 2020 does, "improved_linear" as that of Nichol & Dhariwal 2021.
        variance: sigma_t^2 of ddpm; None takes the model's for the whole chain, and "fixed_small"
            for a shorter one, where "fixed_large" leaves far more noise.
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

    __pydantic_config__: ClassVar[dict[str, Any]] = _CLOSED

    method: Literal["ddpm", "ddim"] = "ddpm"
    num_steps: int = 1000
    eta: float = 0.0
    spacing: Spacing = "linear"
    variance: Variance | None = None
    clip_denoised: bool = True
    keep_epsilon: bool = False
    seed: int = 0
    microbatch_size: int = 128
    precision: Precision = "auto"
    compile: bool | Literal["auto"] = "auto"
    trajectory: int = 0

    def __post_init__(self) -> None:
        _require_positive(self, "num_steps", "microbatch_size")
        for field in ("seed", "trajectory"):
            value = getattr(self, field)
            _require(value >= 0, field, value, "0 or more")
        _require(0.0 <= self.eta <= 1.0, "eta", self.eta, "in [0, 1]")
        _require(self.seed < 2**63, "seed", self.seed, "below 2**63")
        _require(self.method == "ddim" or self.eta == 0.0, "eta", self.eta, "0 with method ddpm")
        _require(
            self.method == "ddim" or not self.keep_epsilon,
            "keep_epsilon",
            self.keep_epsilon,
            "false with method ddpm, whose step has no noise of the network's",
        )
