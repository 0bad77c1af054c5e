"""The parts of job files: what stands below a key of its own, with defaults and checks.

The defaults of the mathematics live in `ddpm.config`; those of the orchestration live here.
"""

import hashlib
import json
from dataclasses import asdict
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from orchestrator.lifecycle.retry import RetryPolicy
from orchestrator.specs.located_errors import FieldsError
from orchestrator.store.names import MAX_NAME_LENGTH

_WORD = r"^[a-z0-9]+(-[a-z0-9]+)*$"
Name = Annotated[str, StringConstraints(pattern=_WORD, max_length=MAX_NAME_LENGTH)]


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


class LabelFile(Closed):
    """Labels from a file of their own.

    Attributes:
        file: A CSV of name,label; or .npy, IDX or a CSV of labels alone, one for each image.
    """

    file: Annotated[str, StringConstraints(min_length=1, max_length=1024)]


_Edge = Annotated[int, Field(ge=1, le=4096)]


def _rises(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] >= bounds[1]:
        raise ValueError("the first number, which becomes -1, must be below the second")
    return bounds


class SourceSpec(Closed):
    """Images as people have them, and what they are to become.

    Attributes:
        source: `digits`, a path, an `s3://` URI, or the name of a data set in the store.
        image_size: Edge, or height and width, of every image; none where all have one size.
        fit: How an image of another shape gets that size: cut, laid on a background, distorted.
        channels: What every image becomes; `auto` keeps what all of them have.
        background: Colour below transparent and padded pixels.
        value_range: Values that become -1 and 1; `auto` is all that a whole-number type can hold.
        labels: Where the classes of the images are from; `auto` takes those that there are.
        skip_damaged: Go on without images that cannot be read, and record which.
    """

    source: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    image_size: _Edge | tuple[_Edge, _Edge] | None = None
    fit: Literal["crop", "pad", "stretch"] = "crop"
    channels: Literal["auto", "grey", "rgb", "rgba"] = "auto"
    background: Annotated[str, StringConstraints(pattern=r"^#[0-9a-fA-F]{6}$")] = "#ffffff"
    value_range: (
        Literal["auto", "minmax"] | Annotated[tuple[float, float], AfterValidator(_rises)]
    ) = "auto"
    labels: Literal["auto", "none", "folders"] | LabelFile = "auto"
    skip_damaged: bool = False


class DatasetSpec(SourceSpec):
    """The images to train on; one of source and job is given.

    Attributes:
        labels: Where the classes of a conditional model, or of an evaluation's counts, are from.
        job: A preparation's id, or a name (its newest job), in place of a source; waits until that
            job has ended.
        holdout_fraction: Share of the images kept for evaluation.
        shuffle: How each epoch of a training is mixed: `full`, or in blocks where the set does not
            fit a node's cache.
        sha256: Hash of the images; `submit` fills it in, and whoever gives it pins them.
    """

    source: Annotated[str, StringConstraints(max_length=1024)] = ""
    job: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    holdout_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    shuffle: Literal["full", "blocks"] = "full"
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if bool(self.source) == (self.job is not None):
            places = [("source",), ("job",)] if self.source else [()]
            raise FieldsError(places, "exactly one of source and job must be given")
        if self.job is not None:
            message = "goes with source: a prepared set is as its job made it; take it out"
            for name, field in SourceSpec.model_fields.items():
                if name != "source" and getattr(self, name) != field.default:
                    raise FieldsError([("job",), (name,)], f"{name} {message}")
        return self


class CheckpointSpec(Closed):
    """When checkpoints are committed and how many are kept.

    Attributes:
        every_steps: Steps between two checkpoints; there is one at the end, too.
        keep: The newest checkpoints that stay; what others draw from stays, too.
        keep_best: By this metric the best of those that evaluation.metrics compares stays, too, and
            is registered: `name@best`.
    """

    every_steps: Annotated[int, Field(ge=1)] = 500
    keep: Annotated[int, Field(ge=1, le=1000)] = 3
    keep_best: Literal["kid", "precision", "recall", "density", "coverage"] | None = None


class RunSpec(Closed):
    """Where MLflow puts the run of a job.

    Attributes:
        experiment: MLflow experiment.
    """

    experiment: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "ddpmctl"


class TrackingSpec(RunSpec):
    """What goes to MLflow.

    Attributes:
        registered_model: Name under which the trained model is registered; None is the job's name.
        log_every_steps: Steps between two metric lines.
        sample_every_steps: Steps between two sample grids; 0 for none.
        num_sample_images: Images of a grid.
        sample_steps: DDIM steps of a grid's images.
    """

    registered_model: Name | None = None
    log_every_steps: Annotated[int, Field(ge=1)] = 10
    sample_every_steps: Annotated[int, Field(ge=0)] = 1000
    num_sample_images: Annotated[int, Field(ge=1, le=1024)] = 64
    sample_steps: Annotated[int, Field(ge=1)] = 50


class SampleTrackingSpec(RunSpec):
    """What goes to MLflow of a sample set.

    Attributes:
        num_sample_images: Images of the grid.
    """

    num_sample_images: Annotated[int, Field(ge=1, le=1024)] = 64


class NotifySpec(Closed):
    """Where the end state is posted.

    Attributes:
        url_env: Name of the variable, where the orchestrator runs, that holds the https address.
    """

    url_env: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]


Weights = Annotated[str, StringConstraints(pattern=r"^(ema(-0\.\d{1,17})?|model)$")]


class ModelRef(Closed):
    """The trained model that a job draws or starts from; exactly one of the first four.

    Attributes:
        job: A training's id, or a name (its newest job); waits until that job has ended.
        registered: `name@alias` or `name/version` in MLflow's registry.
        checkpoint: s3:// URI of a checkpoint's commit object.
        diffusers: A folder with a UNet2DModel and its scheduler; `submit` takes it into the store
            and fills `checkpoint` in.
        weights: `ema`, the moving average, a further one as `ema-0.999` (training.ema_decays), or
            `model`, the raw weights.
        step: With `job`, the checkpoint of that step; None for the newest whole one.
    """

    job: str | None = None
    registered: str | None = None
    checkpoint: str | None = None
    diffusers: str | None = None
    weights: Weights = "ema"
    step: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        names = ("job", "registered", "checkpoint", "diffusers")
        given = [name for name in names if getattr(self, name)]
        if len(given) != 1 and given != ["checkpoint", "diffusers"]:
            raise FieldsError(
                [(name,) for name in given] or [()],
                "exactly one of job, registered, checkpoint and diffusers must be given",
            )
        return self


class InitRef(ModelRef):
    """The trained model that a training starts from; one of job, registered, checkpoint, diffusers.

    Attributes:
        weights: `ema`, the moving average, a further one as `ema-0.999` (training.ema_decays),
            `model`, the raw weights, or `all`, with `job`: averages, optimizer, steps taken and
            decisions, so that the training goes on as if it had not ended (`ddpmctl extend`).
    """

    weights: Annotated[str, StringConstraints(pattern=r"^(ema(-0\.\d{1,17})?|model|all)$")] = "ema"

    @model_validator(mode="after")
    def _all_of_a_job(self) -> Self:
        if self.weights == "all" and self.job is None:
            raise FieldsError([("weights",)], "weights: all needs job, whose settings are compared")
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
