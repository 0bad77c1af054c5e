"""A training, as a job file has it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ddpm.config import (
    ONE_STEP,
    ConfigError,
    DiffusionConfig,
    OwnConfig,
    TrainingConfig,
    UNetConfig,
    check_precision,
)
from orchestrator.specs.job import Job
from orchestrator.specs.located_errors import FieldsError
from orchestrator.specs.measuring import EvaluationSpec, check_evaluations
from orchestrator.specs.network import ModelConfig, check_network
from orchestrator.specs.resources import TrainResources, WorkerRange
from orchestrator.specs.sections import (
    CheckpointSpec,
    DatasetSpec,
    InitRef,
    ModelRef,
    TrackingSpec,
)


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
