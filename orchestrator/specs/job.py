"""What a user asks for: the job files' fields, their defaults and their checks.

`load_spec` turns a file into a frozen object or one located, one-line error. The defaults of the
mathematics live in `ddpm.config`; those of the orchestration live here.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from ddpm.config import DiffusionConfig, SamplingConfig, TrainingConfig, UNetConfig
from orchestrator.errors import BadInputError
from orchestrator.lifecycle.retry import RetryPolicy
from orchestrator.lifecycle.state import PARENT_KEY
from orchestrator.specs.document import Document, load_document
from orchestrator.specs.located_errors import located_error

MAX_NAME_LENGTH = 19  # a job id is the name, a time (15) and four random letters

_WORD = r"^[a-z0-9]+(-[a-z0-9]+)*$"
Name = Annotated[str, StringConstraints(pattern=_WORD, max_length=MAX_NAME_LENGTH)]


def _whole_above_1(gpus: float) -> float:
    """Ray gives a part of one GPU, or whole ones."""
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("a worker has a part of one GPU, or a whole number of them")
    return gpus


Gpus = Annotated[float, Field(ge=0, le=64), AfterValidator(_whole_above_1)] | Literal["auto"]
Cpus = Annotated[int, Field(ge=1, le=1024)] | Literal["auto"]


class Closed(BaseModel):
    """Base of all input: frozen, nothing unknown, nothing converted by guess."""

    # Built at the first use: most verbs never read a spec.
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True
    )

    @property
    def spec_hash(self) -> str:
        """SHA-256 of what was asked: equal for equal requests."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class DatasetSpec(Closed):
    """The images to train on.

    Attributes:
        source: `digits`, a path, or an s3:// URI: a folder or tar of PNG/JPEG, .npz, .npy, IDX.
        holdout_fraction: Share of the images kept for evaluation.
        sha256: Hash of the images; `submit` fills it in, and whoever gives it pins them.
    """

    source: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    holdout_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None


class CheckpointSpec(Closed):
    """When checkpoints are committed and how many are kept."""

    every_steps: Annotated[int, Field(ge=1)] = 500
    keep: Annotated[int, Field(ge=1, le=1000)] = 3


class TrackingSpec(Closed):
    """What MLflow is told.

    Attributes:
        experiment: MLflow experiment.
        registered_model: Name under which the trained model is registered; None is the job's name.
        log_every_steps: Steps between two metric lines.
        sample_every_steps: Steps between two sample grids; 0 for none.
        num_sample_images: Images of a grid.
        sample_steps: DDIM steps of a grid's images.
    """

    experiment: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "ddpmctl"
    registered_model: Name | None = None
    log_every_steps: Annotated[int, Field(ge=1)] = 10
    sample_every_steps: Annotated[int, Field(ge=0)] = 1000
    num_sample_images: Annotated[int, Field(ge=1, le=1024)] = 64
    sample_steps: Annotated[int, Field(ge=1)] = 50


class SampleTrackingSpec(Closed):
    """What MLflow is told of a sample set.

    Attributes:
        experiment: MLflow experiment.
        num_sample_images: Images of the grid.
    """

    experiment: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "ddpmctl"
    num_sample_images: Annotated[int, Field(ge=1, le=1024)] = 64


class EvaluationSpec(Closed):
    """The bits per dimension at the end of a training.

    Attributes:
        num_images: Held-out images; 0 switches the evaluation off.
        num_timesteps: Timesteps drawn for the estimate, stratified over the T.
    """

    num_images: Annotated[int, Field(ge=0)] = 256
    num_timesteps: Annotated[int, Field(ge=2)] = 100


class TrainResources(Closed):
    """The workers of a training."""

    num_workers: Annotated[int, Field(ge=1, le=4096)] = 1
    gpus_per_worker: Gpus = "auto"
    cpus_per_worker: Cpus = "auto"


class WorkerRange(Closed):
    """How many workers a fleet may have."""

    min: Annotated[int, Field(ge=1, le=4096)] = 1
    max: Annotated[int, Field(ge=1, le=4096)] = 1

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) must not be below min ({self.min})")
        return self


def _as_range(value: object) -> object:
    return {"min": value, "max": value} if type(value) is int else value


class SampleResources(Closed):
    """The workers of a sampling fleet: a number, or a least and a largest one."""

    num_workers: Annotated[WorkerRange, BeforeValidator(_as_range)] = Field(
        default_factory=WorkerRange
    )
    gpus_per_worker: Gpus = "auto"
    cpus_per_worker: Cpus = "auto"


class NotifySpec(Closed):
    """Where the end state is posted.

    Attributes:
        url_env: Name of the variable, where the orchestrator runs, that holds the https address.
    """

    url_env: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]


class ModelRef(Closed):
    """The model that a sample job draws from; exactly one of the first three.

    Attributes:
        job: A training job's id, or a name (its newest job).
        registered: `name@alias` or `name/version` in MLflow's registry.
        checkpoint: s3:// URI of a checkpoint's commit object.
        weights: The moving average, or the raw weights.
        step: With `job`, the checkpoint of that step; None for the newest whole one.
    """

    job: str | None = None
    registered: str | None = None
    checkpoint: str | None = None
    weights: Literal["ema", "model"] = "ema"
    step: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("job", "registered", "checkpoint") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError("exactly one of job, registered and checkpoint must be given")
        return self


def _with_budgets(value: object) -> object:
    """Fill in what a job file leaves out of a cause's budget with that cause's own defaults."""
    if not isinstance(value, dict):
        return value
    defaults = asdict(RetryPolicy())
    causes = {name: default for name, default in defaults.items() if isinstance(default, dict)}
    given = {k: {**causes[k], **v} for k, v in value.items() if k in causes and isinstance(v, dict)}
    return {**value, **given}


Retry = Annotated[RetryPolicy, BeforeValidator(_with_budgets)]
"""A retry policy as files give it, perhaps in part."""


class _Job(Closed):
    """What every kind of job has; `submit --smoke` fills in the last two."""

    name: Name
    queue: Name = "default"
    priority: Annotated[int, Field(ge=0, le=100)] = 50
    max_runtime_s: Annotated[float, Field(gt=0)] | None = None
    preemptible: bool = True
    retry: Retry = RetryPolicy()
    notify: NotifySpec | None = None
    smoke_of: str | None = None
    waits_for_smoke: str | None = None


class TrainJob(_Job):
    """Train a DDPM."""

    kind: Literal["train"]
    dataset: DatasetSpec
    model: UNetConfig = UNetConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    training: TrainingConfig
    checkpoints: CheckpointSpec = Field(default_factory=CheckpointSpec)
    tracking: TrackingSpec = Field(default_factory=TrackingSpec)
    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec)
    resources: TrainResources = Field(default_factory=TrainResources)

    @property
    def num_workers(self) -> WorkerRange:
        """Least and most workers: a training has one size."""
        return WorkerRange(min=self.resources.num_workers, max=self.resources.num_workers)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        batch, workers = self.training.global_batch_size, self.resources.num_workers
        if batch % workers:
            raise ValueError(
                f"training.global_batch_size ({batch}) must be a multiple of "
                f"resources.num_workers ({workers})"
            )
        return self


class SampleJob(_Job):
    """Draw images from a trained model."""

    kind: Literal["sample"]
    model: ModelRef
    num_samples: Annotated[int, Field(ge=1, le=10**9)]
    sampling: SamplingConfig = SamplingConfig()
    shard_size: Annotated[int, Field(ge=1, le=10**6)] = 1024
    format: Literal["webdataset", "npy"] = "webdataset"
    tracking: SampleTrackingSpec = Field(default_factory=SampleTrackingSpec)
    resources: SampleResources = Field(default_factory=SampleResources)

    @property
    def num_workers(self) -> WorkerRange:
        """Least and most workers."""
        return self.resources.num_workers

    @model_validator(mode="after")
    def _microbatches_fill_shards(self) -> Self:
        microbatch = self.sampling.microbatch_size
        if self.shard_size % microbatch:
            raise ValueError(
                f"shard_size ({self.shard_size}) must be a multiple of "
                f"sampling.microbatch_size ({microbatch})"
            )
        return self


Job = TrainJob | SampleJob
KINDS: Mapping[str, type[TrainJob] | type[SampleJob]] = {"train": TrainJob, "sample": SampleJob}


def load_spec(path: Path, overrides: Sequence[str] = ()) -> Job:
    """Read and check a job file.

    Args:
        path: The file.
        overrides: `a.b=value` each, as `--set` takes them.

    Raises:
        BadInputError: One line that names file, line and key, and what to do.
    """
    document = load_document(path)
    for override in overrides:
        document.override(override)
    return checked_job(document)


def spec_from_json(body: bytes) -> Job:
    """Read a stored spec; the group it belongs to stands beside it. Raises: BadInputError."""
    value: dict[str, Any] = json.loads(body)
    value.pop(PARENT_KEY, None)
    kind = str(value.get("kind"))
    if kind not in KINDS:
        raise BadInputError(f"this version knows no job of kind {kind!r}")
    try:
        return KINDS[kind].model_validate_json(json.dumps(value))
    except ValidationError as error:
        raise located_error(error, Document("spec.json", value, {}), KINDS[kind]) from error


def checked_job(document: Document) -> Job:
    """Return the job that a document describes.

    Raises:
        BadInputError: One line that names file, line and key, and what to do.
    """
    kind = document.value.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        known = " or ".join(KINDS)
        raise BadInputError(f"{document.where(('kind',))}: kind must be {known}, not {kind!r}")
    try:
        spec = KINDS[kind].model_validate_json(json.dumps(document.value))
    except ValidationError as error:
        raise located_error(error, document, KINDS[kind]) from error
    if isinstance(spec, SampleJob) and spec.model.step is not None and spec.model.job is None:
        where = document.where(("model", "step"))
        raise BadInputError(f"{where}: model.step goes with model.job; take one of the two out")
    return spec
