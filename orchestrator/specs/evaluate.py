"""What a user asks for when a sample set is to be compared with real images."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from orchestrator.specs.job import Job
from orchestrator.specs.located_errors import FieldsError
from orchestrator.specs.measuring import ExtractorSpec
from orchestrator.specs.resources import SampleResources, WorkerRange
from orchestrator.specs.sections import Closed, DatasetSpec


class SetRef(Closed):
    """The images of another job.

    Attributes:
        job: A sample job's id or name (its newest job): its set. As what is compared against, also
            a training's: the images that it learned from, and those that it held out.
    """

    job: Annotated[str, StringConstraints(min_length=1, max_length=64)]


class StatisticsSpec(Closed):
    """Mean and covariance of real images' features that others have published.

    Attributes:
        file: An npz with `mu` and `sigma`: a path on the machine where drivers run.
        sha256: Hash of the file; none takes it as it is, and the result names it.
    """

    file: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None


class EvaluateJob(Job):
    """Compare a sample set with real images.

    Attributes:
        of: The sample set; waits until its job has ended.
        against: The job whose images it is compared with; one of this and `dataset` is given.
        dataset: Real images to compare with, by their source.
        statistics: Published statistics of real images that the Fréchet distance is measured
            from, too, beside the other metrics.
        extractor: What turns images into features.
        k: Neighbours of precision, recall, density and coverage.
        seed: Of the halves and splits that standard errors and floors come from.
    """

    kind: Literal["evaluate"]
    of: SetRef
    against: SetRef | None = None
    dataset: DatasetSpec | None = None
    statistics: StatisticsSpec | None = None
    extractor: ExtractorSpec = Field(default_factory=ExtractorSpec)
    k: Annotated[int, Field(ge=1, le=100)] = 5
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    resources: SampleResources = Field(default_factory=SampleResources)

    @property
    def total(self) -> int:
        """Unknown before the sets are looked at."""
        return 0

    @property
    def num_workers(self) -> WorkerRange:
        """Least and most workers."""
        return self.resources.num_workers

    @property
    def dataset_input(self) -> DatasetSpec | None:
        """The real images, where they are named by their source."""
        return self.dataset

    @property
    def reads_labels(self) -> bool:
        """Its classifier compares classes, where there are some."""
        return True

    @property
    def image_jobs(self) -> tuple[str, ...]:
        """Whose set is evaluated, and whose images it is compared with."""
        return (self.of.job, *([self.against.job] if self.against else []))

    @model_validator(mode="after")
    def _one_reference(self) -> Self:
        if (self.against is None) == (self.dataset is None):
            places = [("against",)] if self.against is not None else []
            message = "give one of against (a job) and dataset (a source) to compare with"
            raise FieldsError(places or [()], message)
        return self
