"""One training run."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ddpm.settings.fields import CLOSED, Precision, require, require_positive

LrSchedule = Literal["constant", "cosine", "linear", "inverse_sqrt"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run.

    Attributes:
        num_steps: Optimizer steps.
        global_batch_size: Images of one step over all workers; the workers must divide it.
        microbatch_size: Images of a worker that go through the network together, a divisor of its
            share of the batch; the gradients of its parts are added in their order. None takes the
            share whole. Fewer need less memory; other numbers give other bits.
        learning_rate: Peak learning rate.
        lr_warmup_steps: Steps over which the learning rate rises linearly from 0.
        lr_schedule: What it does after that: "constant", "cosine" and "linear" towards 0 at
            num_steps, or "inverse_sqrt", the root of lr_warmup_steps by the step (Vaswani et al.
            2017, 5.3).
        optimizer: "adam" or "adamw".
        weight_decay: Decoupled weight decay, "adamw" only.
        grad_clip_norm: Largest norm of the gradient; 0 switches clipping off.
        ema_decay: Decay of the moving average of the weights, in [0, 1).
        ema_decays: Decays of further averages, which are kept beside that one: `weights: ema-0.999`
            of a model draws with the one of 0.999.
        ema_warmup: Use min(ema_decay, (1 + step) / (10 + step)), so that short runs have an
            average of their own weights and not of their initial ones.
        label_dropout: Share of the labels, of a network that has some, that are replaced by no
            class: guidance needs a network that also knows how to draw without.
        activation_checkpointing: Keep of each stage of the network its input alone and compute the
            rest again for the gradient: a third more work, much less memory, the same bits.
        horizontal_flip: Mirror every second image on average; wrong for digits and letters.
        augment: Probability with which an image is mirrored, turned, scaled, stretched and moved,
            each apart, for small data sets (Karras et al. 2022, appendix F.2, with 0.12). The
            network is conditioned on it by `model.augmentation`, so it draws none of it.
        precision: "bf16" is autocast; "auto" takes what is fastest on the job's machine.
        compile: Whether the step is compiled; "auto" takes the AMX kernels where they fit, else
            weighs the compile time against the work.
        seed: Seed of the initial weights, the order of the images, t, the noise and the dropout.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = CLOSED

    num_steps: int
    global_batch_size: int = 128
    microbatch_size: int | None = None
    learning_rate: float = 2e-4
    lr_warmup_steps: int = 0
    lr_schedule: LrSchedule = "constant"
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: float = 0.0
    grad_clip_norm: float = 1.0
    ema_decay: float = 0.9999
    ema_decays: tuple[float, ...] = ()
    ema_warmup: bool = True
    label_dropout: float = 0.1
    activation_checkpointing: bool = False
    horizontal_flip: bool = False
    augment: float = 0.0
    precision: Precision = "auto"
    compile: bool | Literal["auto"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "num_steps", "global_batch_size", "learning_rate")
        if self.microbatch_size is not None:
            require_positive(self, "microbatch_size")
        for field in ("lr_warmup_steps", "weight_decay", "grad_clip_norm", "seed"):
            value = getattr(self, field)
            require(value >= 0, field, value, "0 or more")
        require(
            self.optimizer == "adamw" or self.weight_decay == 0.0,
            "weight_decay",
            self.weight_decay,
            "0 with optimizer adam (adamw decays)",
        )
        require(0.0 <= self.ema_decay < 1.0, "ema_decay", self.ema_decay, "in [0, 1)")
        decays = self.ema_decays
        usable = all(0.0001 <= decay < 1.0 for decay in decays) and len({*decays}) == len(decays)
        require(usable, "ema_decays", decays, "numbers from 0.0001 to below 1, each once")
        require(0.0 <= self.label_dropout <= 1.0, "label_dropout", self.label_dropout, "in [0, 1]")
        require(0.0 <= self.augment <= 1.0, "augment", self.augment, "in [0, 1]")
        require(self.seed < 2**63, "seed", self.seed, "below 2**63")
        require(
            self.lr_schedule != "inverse_sqrt" or self.lr_warmup_steps > 0,
            "lr_warmup_steps",
            self.lr_warmup_steps,
            "greater than 0 with lr_schedule inverse_sqrt, which falls from there",
        )

    @property
    def further_averages(self) -> dict[str, float]:
        """The decays of `ema_decays` by the names of their averages."""
        return {f"ema-{decay}": decay for decay in self.ema_decays}

    @property
    def lr_depends_on_length(self) -> bool:
        """Whether the learning rate of a step depends on `num_steps`."""
        return self.lr_schedule in ("cosine", "linear")

    def images_per_pass(self, num_workers: int) -> int:
        """Return how many images of a worker go through the network together.

        Raises:
            ConfigError: The microbatch divides no worker's share of the batch.
        """
        share = self.global_batch_size // num_workers
        size = min(self.microbatch_size or share, share)
        divides = f"a divisor of {share}, a worker's share of the batch"
        require(share % size == 0, "microbatch_size", self.microbatch_size, divides)
        return size

    def num_passes(self, num_workers: int) -> int:
        """Return how often a worker goes through the network in a step."""
        return self.global_batch_size // num_workers // self.images_per_pass(num_workers)
