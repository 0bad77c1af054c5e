"""What a training's file says of how good its model is: on the way, and at the end."""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from orchestrator.lifecycle.curves import MAX_EVALUATIONS, evaluated_steps
from orchestrator.specs.located_errors import FieldsError
from orchestrator.specs.sections import CheckpointSpec, Closed

_OWN = ("pixels", "efflite0")


class ExtractorSpec(Closed):
    """What turns images into features; a metric is named after it.

    Attributes:
        name: `pixels` (in [-1, 1]); `efflite0` (EfficientNet-Lite0, ImageNet); `inception`,
            `dinov2` or a name of your own with a TorchScript file.
        file: That file: a path on the machines of the workers.
        sha256: Hash of the file; `inception` knows its own.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=32)] = (
        "pixels"
    )
    file: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _has_its_weights(self) -> Self:
        if self.name in _OWN and self.file is not None:
            message = f"extractor.file: {self.name} needs none; remove it or give another name"
            raise FieldsError([("file",)], message)
        if self.name not in _OWN and self.file is None:
            message = (
                f"extractor.file: {self.name} needs a TorchScript file; without: pixels, efflite0"
            )
            raise FieldsError([("name",)], message)
        if self.file is not None and self.sha256 is None and self.name != "inception":
            raise FieldsError([("file",)], "extractor.sha256: give the hash of the file")
        return self


class MetricsSpec(Closed):
    """Samples of checkpoints, compared with the real images while the training goes on.

    Each is a job of its own with the priority 0, so that it takes what others leave.

    Attributes:
        every_steps: Steps between two checkpoints that are compared, a multiple of
            checkpoints.every_steps; the last one is compared, too.
        num_samples: Images that are drawn from each, always with the same noise.
        extractor: What turns images into features.
        steps: DDIM steps of an image; a VAE or GAN draws in one.
    """

    every_steps: Annotated[int, Field(ge=1)]
    num_samples: Annotated[int, Field(ge=50, le=10**6)] = 1000
    extractor: ExtractorSpec = Field(default_factory=ExtractorSpec)
    steps: Annotated[int, Field(ge=1, le=10**6)] = 50


class EvaluationSpec(Closed):
    """How good a training's model is: the bits per dimension at the end, and samples on the way.

    Attributes:
        num_images: Held-out images; 0 switches the bits per dimension off.
        num_timesteps: Timesteps drawn for the estimate, stratified over the T.
        metrics: Samples of checkpoints that are compared with the real images on the way; left out
            for none.
    """

    num_images: Annotated[int, Field(ge=0)] = 256
    num_timesteps: Annotated[int, Field(ge=2)] = 100
    metrics: MetricsSpec | None = None


def check_evaluations(
    metrics: MetricsSpec | None, checkpoints: CheckpointSpec, num_steps: int
) -> None:
    """Raise FieldsError unless the checkpoints that are to be compared will be there.

    Args:
        metrics: What is compared; None for nothing.
        checkpoints: When there is one.
        num_steps: Of the training.
    """
    if metrics is None:
        if checkpoints.keep_best is not None:
            message = "checkpoints.keep_best needs evaluation.metrics: give it, or take this out"
            raise FieldsError((("checkpoints", "keep_best"),), message)
        return
    places = (("checkpoints", "every_steps"), ("evaluation", "metrics", "every_steps"))
    if metrics.every_steps % checkpoints.every_steps:
        raise FieldsError(
            places,
            f"evaluation.metrics.every_steps ({metrics.every_steps}) must be a multiple of "
            f"checkpoints.every_steps ({checkpoints.every_steps}): checkpoints are compared",
        )
    number = len(evaluated_steps(metrics.every_steps, num_steps))
    if number > MAX_EVALUATIONS:
        text = f"evaluation.metrics.every_steps ({metrics.every_steps}) makes {number:,}"
        raise FieldsError(places[1:], f"{text} evaluations; {MAX_EVALUATIONS:,} at most")
