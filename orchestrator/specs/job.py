"""What a user asks for, of whatever kind: what every job file has.

What stands below their keys is in `sections` and, for the mathematics, in `ddpm.config`. Which
kinds there are, and how a file becomes one of these objects, is in `kinds`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from ddpm.config import (
    OwnConfig,
    SamplingConfig,
)
from orchestrator.lifecycle.retry import RetryPolicy
from orchestrator.specs.located_errors import FieldsError
from orchestrator.specs.resources import Resources, WorkerRange
from orchestrator.specs.sections import (
    Closed,
    DatasetSpec,
    ModelRef,
    Name,
    NotifySpec,
    Retry,
    RunSpec,
)


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
