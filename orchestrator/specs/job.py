"""What a user asks for: the kinds of jobs as a job file has them.

What stands below their keys is in `sections` and, for the mathematics, in `ddpm.config`. Which
kinds there are, and how a file becomes one of these objects, is in `kinds`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ddpm.config import (
    ONE_STEP,
    ConfigError,
    DiffusionConfig,
    OwnConfig,
    SamplingConfig,
    TrainingConfig,
    UNetConfig,
    check_precision,
)
from orchestrator.lifecycle.retry import RetryPolicy
from orchestrator.specs.located_errors import FieldsError
from orchestrator.specs.measuring import EvaluationSpec, check_evaluations
from orchestrator.specs.microbatches import with_fitting_microbatch
from orchestrator.specs.network import ModelConfig, check_network
from orchestrator.specs.resources import Resources, SampleResources, TrainResources, WorkerRange
from orchestrator.specs.sections import (
    CheckpointSpec,
    Closed,
    DatasetSpec,
    InitRef,
    ModelRef,
    Name,
    NotifySpec,
    Retry,
    RunSpec,
    SampleTrackingSpec,
    TrackingSpec,
)

SMOKE_STEPS = 2  # reverse steps of a sampling's smoke test


class Job(Closed, ABC):
    """What every kind of job has.

    What others need to know of a job whatever its kind, they ask by the properties; how a kind is
    called, started and counted stands in `kinds.JOB_KINDS`.

    Attributes:
        kind: What is to be done.
        name: What it is called: a-z, 0-9 and single hyphens. Others may refer to its newest job so.
        queue: Whose quota it counts against.
        priority: The highest goes first; first come, first served within one.
        max_runtime_s: An attempt is stopped after so many seconds, as TIMED_OUT.
        max_gpu_hours: A job is stopped once its attempts have held so many GPU-hours, as
            GPU_HOURS_SPENT; its work is saved, and `ddpmctl retry` gives it as many again. A fleet
            with such a limit borrows no room.
        preemptible: May have to make room for a higher priority; its work is saved first.
        retry: What is tried again, by cause; progress renews the budgets.
        notify: Where its end is posted, at least once.
        tracking: What goes to MLflow.
        resources: Its workers and what each of them gets.
    """

    kind: str
    name: Name
    queue: Name = "default"
    priority: Annotated[int, Field(ge=0, le=100)] = 50
    max_runtime_s: Annotated[float, Field(gt=0)] | None = None
    max_gpu_hours: Annotated[float, Field(gt=0)] | None = None
    preemptible: bool = True
    retry: Retry = RetryPolicy()
    notify: NotifySpec | None = None
    tracking: RunSpec = Field(default_factory=RunSpec)
    resources: Resources = Field(default_factory=Resources)

    @model_validator(mode="after")
    def _spends_gpu_hours(self) -> Self:
        if self.max_gpu_hours is not None and self.resources.gpus_per_worker == 0:
            raise FieldsError(
                [("max_gpu_hours",), ("resources", "gpus_per_worker")],
                "max_gpu_hours limits GPUs, and resources.gpus_per_worker is 0: take one out",
            )
        return self

    @property
    @abstractmethod
    def total(self) -> int:
        """How much there is to do, in the kind's unit."""

    @property
    @abstractmethod
    def num_workers(self) -> WorkerRange:
        """Least and most workers."""

    @property
    def dataset_input(self) -> DatasetSpec | None:
        """The images that it reads; None for none."""
        return None

    @property
    def model_input(self) -> ModelRef | None:
        """The trained model that it reads; None for none."""
        return None

    @property
    def model_field(self) -> str:
        """The field that names that model."""
        return "model"

    @property
    def image_jobs(self) -> tuple[str, ...]:
        """Jobs, by id or name, whose images it reads; their sets must have been drawn."""
        return ()

    @property
    def is_of_one_accelerator(self) -> bool:
        """Whether all workers of an attempt must have one type of GPU."""
        return False

    @property
    def fixes_accelerator(self) -> bool:
        """Whether its first attempt's type of GPU is that of all."""
        return False

    @property
    def reads_labels(self) -> bool:
        """Whether the labels of its images are of use to it, where it may have them or not."""
        return False

    @property
    def needs_labels(self) -> bool:
        """Whether labels that were asked for must be there for every image."""
        return False

    @property
    def drawing(self) -> SamplingConfig | None:
        """How it draws from its model; None if it does not."""
        return None

    @property
    def images_per_shard(self) -> int | None:
        """Images that it draws and commits together; None if it draws no set."""
        return None

    @property
    def own_network(self) -> OwnConfig | None:
        """The network of another package that it trains, its `model`; None for none."""
        return None

    @property
    def outputs_per_channel(self) -> int:
        """Channels that such a network gives for each of the image's."""
        return 1

    def check_images(self, shape: tuple[int, int, int], num_classes: int) -> None:
        """Raise ConfigError if it cannot take such images.

        Args:
            shape: Channels, height, width.
            num_classes: Classes that they have labels of; 0 for none.
        """

    def smoke_changes(self) -> Mapping[str, object]:
        """Return the fields in which its smoke test differs from it, beyond those of every kind."""
        return {}


def _diffusion_of(fields: Mapping[str, Any]) -> DiffusionConfig:
    """Return the diffusion that a training has where its file names none."""
    model = fields.get("model")
    return ONE_STEP if model is not None and model.family != "ddpm" else DiffusionConfig()


class TrainJob(Job):
    """Train a DDPM, or a VAE or GAN to compare one with.

    Attributes:
        dataset: The images to train on.
        model: What is trained, and its sizes; the defaults are those of Ho et al. 2020 for
            CIFAR-10. Or `network: NAME` of an installed package, beside it that one's settings and
            `num_classes`.
        init: The trained model whose weights it starts from; none draws them from training.seed.
        diffusion: The forward process, what the network predicts, and the loss; left out of a VAE
            or GAN, which draws in one step.
        training: Steps, batch, learning rate and what else makes up the run.
        checkpoints: When checkpoints are committed and how many are kept.
        evaluation: The bits per dimension at the end, and how good samples are on the way.
    """

    kind: Literal["train"]
    dataset: DatasetSpec
    model: ModelConfig = UNetConfig()
    init: InitRef | None = None
    diffusion: DiffusionConfig = Field(default_factory=_diffusion_of)
    training: TrainingConfig
    checkpoints: CheckpointSpec = Field(default_factory=CheckpointSpec)
    tracking: TrackingSpec = Field(default_factory=TrackingSpec)
    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec)
    resources: TrainResources = Field(default_factory=TrainResources)

    @property
    def total(self) -> int:
        """Steps."""
        return self.training.num_steps

    @property
    def num_workers(self) -> WorkerRange:
        """Least and most workers: a training has one size."""
        return WorkerRange(min=self.resources.num_workers, max=self.resources.num_workers)

    @property
    def dataset_input(self) -> DatasetSpec:
        """The images that it learns from."""
        return self.dataset

    @property
    def model_input(self) -> ModelRef | None:
        """The model whose weights it starts from."""
        return self.init

    @property
    def model_field(self) -> str:
        """The field that names that model."""
        return "init"

    @property
    def is_of_one_accelerator(self) -> bool:
        """Its workers add up one gradient."""
        return True

    @property
    def fixes_accelerator(self) -> bool:
        """Another type has other last bits."""
        return not self.resources.allow_other_accelerator

    @property
    def reads_labels(self) -> bool:
        """Whether its network is conditioned on classes."""
        return self.model.num_classes != 0

    @property
    def needs_labels(self) -> bool:
        """It learns from every image."""
        return True

    @property
    def own_network(self) -> OwnConfig | None:
        """What is trained, where another package brings it."""
        return self.model if isinstance(self.model, OwnConfig) else None

    @property
    def outputs_per_channel(self) -> int:
        """Two with a learned variance."""
        return self.diffusion.outputs_per_channel

    def check_images(self, shape: tuple[int, int, int], num_classes: int) -> None:
        """Raise ConfigError if its network cannot take such images."""
        self.model.check_image_shape(shape)
        self.model.for_classes(num_classes)

    def smoke_changes(self) -> Mapping[str, object]:
        """One worker, with its share of the batch."""
        share = self.training.global_batch_size // self.resources.num_workers
        changes = {
            "resources": self.resources.model_copy(update={"num_workers": 1}),
            "training": replace(self.training, global_batch_size=share),
            "evaluation": self.evaluation.model_copy(update={"metrics": None}),
            "checkpoints": self.checkpoints.model_copy(update={"keep_best": None}),
        }
        # A whole state belongs to its own batch; two steps are tried from drawn weights instead.
        goes_on = self.init is not None and self.init.weights == "all"
        return {**changes, "init": None} if goes_on else changes

    @model_validator(mode="after")
    def _fits_family(self) -> Self:
        family, training = self.model.family, self.training
        if family == "ddpm":
            if self.diffusion.num_timesteps == 1:
                raise FieldsError(
                    (("model", "family"), ("diffusion", "num_timesteps")),
                    "diffusion.num_timesteps must be at least 2 with model.family ddpm: what draws "
                    "in one step is a vae or a gan",
                )
            return self
        asked = {
            ("diffusion",): self.diffusion != ONE_STEP,
            ("training", "precision"): training.precision == "bf16",
            ("training", "compile"): training.compile is True,
            ("training", "activation_checkpointing"): training.activation_checkpointing,
        }
        for place, is_asked in asked.items():
            if is_asked:
                message = f"{'.'.join(place)} must be left out with model.family {family}"
                why = "which draws in one step" if len(place) == 1 else "which trains in float32"
                raise FieldsError((("model", "family"), place), f"{message}, {why}")
        return self

    @model_validator(mode="after")
    def _evaluates_checkpoints(self) -> Self:
        check_evaluations(self.evaluation.metrics, self.checkpoints, self.training.num_steps)
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_network(self.model, self.training)
        batch, workers = self.training.global_batch_size, self.resources.num_workers
        if batch % workers:
            raise FieldsError(
                (("training", "global_batch_size"), ("resources", "num_workers")),
                f"training.global_batch_size ({batch}) must be a multiple of "
                f"resources.num_workers ({workers})",
            )
        try:
            self.training.images_per_pass(workers)
        except ConfigError as error:
            places = (("resources", "num_workers"), ("training", error.field))
            raise FieldsError(places, f"training.{error}") from error
        check_precision(self.training.precision, self.diffusion.prediction, "training.precision")
        return self


class SampleJob(Job):
    """Draw images from a trained model.

    Attributes:
        model: The model that draws; one of job, registered, checkpoint and diffusers.
        num_samples: Images of the set.
        sampling: How they are drawn.
        shard_size: Images that are committed together, a multiple of the microbatch; one that was
            left out becomes a divisor of it.
        format: `webdataset` is tars of PNGs named by index, `npy` is arrays.
    """

    kind: Literal["sample"]
    model: ModelRef
    num_samples: Annotated[int, Field(ge=1, le=10**9)]
    sampling: SamplingConfig = SamplingConfig()
    shard_size: Annotated[int, Field(ge=1, le=10**6)] = 1024
    format: Literal["webdataset", "npy"] = "webdataset"
    tracking: SampleTrackingSpec = Field(default_factory=SampleTrackingSpec)
    resources: SampleResources = Field(default_factory=SampleResources)

    @property
    def total(self) -> int:
        """Images."""
        return self.num_samples

    @property
    def num_workers(self) -> WorkerRange:
        """Least and most workers."""
        return self.resources.num_workers

    @property
    def model_input(self) -> ModelRef:
        """The model that draws."""
        return self.model

    @property
    def drawing(self) -> SamplingConfig:
        """How it draws."""
        return self.sampling

    @property
    def images_per_shard(self) -> int:
        """Images that are committed together; a small set is one shard."""
        return min(self.shard_size, self.num_samples)

    def smoke_changes(self) -> Mapping[str, object]:
        """One image of few steps, on one worker."""
        num_steps = min(SMOKE_STEPS, self.sampling.num_steps)
        return {
            "resources": self.resources.model_copy(update={"num_workers": WorkerRange()}),
            "sampling": replace(self.sampling, num_steps=num_steps, spacing="linear", trajectory=0),
            "num_samples": 1,
            "shard_size": self.sampling.microbatch_size,
        }

    @model_validator(mode="after")
    def _fits_what_was_left_out(self) -> Self:
        # A file's keys were completed before; this is for who makes a job in Python.
        if "sampling" not in self.model_fields_set:
            fitting = with_fitting_microbatch({"shard_size": self.shard_size}).get("sampling", {})
            object.__setattr__(self, "sampling", replace(self.sampling, **fitting))
        return self

    @model_validator(mode="after")
    def _microbatches_fill_shards(self) -> Self:
        microbatch = self.sampling.microbatch_size
        if self.shard_size % microbatch:
            raise FieldsError(
                (("sampling", "microbatch_size"), ("shard_size",)),
                f"shard_size ({self.shard_size}) must be a multiple of "
                f"sampling.microbatch_size ({microbatch})",
            )
        return self
