"""What a user asks for when a data set is to be prepared by the cluster."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from orchestrator.specs.job import Job
from orchestrator.specs.located_errors import FieldsError
from orchestrator.specs.resources import Gpus, Resources, WorkerRange, Workers
from orchestrator.specs.sections import SourceSpec

MAX_WORKERS = 64


class PrepareResources(Resources):
    """The workers of a preparation.

    Attributes:
        gpus_per_worker: 0: pictures are decoded by CPUs.
        num_workers: A number, or a least and a largest one as {min: 1, max: 16}; without, as many
            as there is room for.
    """

    gpus_per_worker: Gpus = 0.0
    num_workers: Workers = Field(default_factory=lambda: WorkerRange(min=1, max=MAX_WORKERS))

    @model_validator(mode="after")
    def _without_gpus(self) -> Self:
        if self.gpus_per_worker != 0:
            message = "gpus_per_worker must be 0 here: pictures are decoded by CPUs; take it out"
            raise FieldsError([("gpus_per_worker",)], message)
        return self


class PrepareJob(Job):
    """Prepare a data set on all CPUs of the cluster.

    Attributes:
        dataset: Where its images are, as every node sees them, and what they are to become.
    """

    kind: Literal["prepare"]
    dataset: SourceSpec
    resources: PrepareResources = Field(default_factory=PrepareResources)

    @property
    def total(self) -> int:
        """Unknown before the source is looked at."""
        return 0

    @property
    def num_workers(self) -> WorkerRange:
        """Least and most workers."""
        return self.resources.num_workers

    def smoke_changes(self) -> Mapping[str, object]:
        """One worker, which looks at the first images."""
        return {"resources": self.resources.model_copy(update={"num_workers": WorkerRange()})}


def source_of(job: Job) -> SourceSpec | None:
    """Return the source that a job takes into the store itself; None for none."""
    return job.dataset if isinstance(job, PrepareJob) else None
