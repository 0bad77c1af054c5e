"""What job files ask of machines: workers, and what each of them gets."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from orchestrator.specs.located_errors import FieldsError
from orchestrator.specs.sections import Closed


def _whole_above_1(gpus: float) -> float:
    """Ray gives a part of one GPU, or whole ones."""
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("a worker has a part of one GPU, or a whole number of them")
    return gpus


Gpus = Annotated[float, Field(ge=0, le=64), AfterValidator(_whole_above_1)] | Literal["auto"]
Cpus = Annotated[int, Field(ge=1, le=1024)] | Literal["auto"]
AcceleratorType = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=63)
]
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def _ray_labels(labels: dict[str, str]) -> dict[str, str]:
    """Refuse what Ray does not take as a node's label."""
    for key, value in labels.items():
        domain, slash, name = key.rpartition("/")
        if _LABEL.fullmatch(name) is None or (slash and _LABEL_DOMAIN.fullmatch(domain) is None):
            raise ValueError(f"{key!r} is no label's key: letters, digits, '-', '_' and '.'")
        if _LABEL.fullmatch(value) is None:
            raise ValueError(f"{value!r} is no label's value: letters, digits, '-', '_' and '.'")
    return labels


class Resources(Closed):
    """What each worker of a job gets.

    Attributes:
        gpus_per_worker: GPUs of each worker, or a part of one; auto is one where the cluster has
            any, resolved at the first admission, for all attempts.
        cpus_per_worker: CPUs of each worker; auto likewise.
        memory_gb: Memory of each worker in GB of 10^9 bytes, counted against what Ray lends of each
            node; none does not count it. It is a share, not a wall.
        accelerator: The type of GPU as `ddpmctl nodes` shows it, H100, or several, the dearest
            first; none takes any.
        labels: Labels that a node must have, as {zone: a}; Ray nodes get them by
            `ray start --labels`.
    """

    gpus_per_worker: Gpus = "auto"
    cpus_per_worker: Cpus = "auto"
    memory_gb: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    accelerator: AcceleratorType | list[AcceleratorType] | None = None
    labels: Annotated[dict[str, str], AfterValidator(_ray_labels)] = Field(default_factory=dict)

    @property
    def accelerators(self) -> tuple[str, ...]:
        """The types of GPU that it may use; none for any."""
        if self.accelerator is None:
            return ()
        return (self.accelerator,) if isinstance(self.accelerator, str) else tuple(self.accelerator)

    @model_validator(mode="after")
    def _has_gpus_of_that_type(self) -> Self:
        if self.accelerator is not None and self.gpus_per_worker == 0:
            raise FieldsError(
                [("accelerator",), ("gpus_per_worker",)],
                "accelerator names a type of GPU, and gpus_per_worker is 0: take one of them out",
            )
        if self.accelerator == []:
            raise FieldsError([("accelerator",)], "accelerator names no type: take it out")
        return self


class TrainResources(Resources):
    """The workers of a training.

    Attributes:
        num_workers: Workers that share each batch.
        allow_other_accelerator: Let later attempts go on with another type of GPU than the first
            had, which changes the last bits of the weights.
    """

    num_workers: Annotated[int, Field(ge=1, le=4096)] = 1
    allow_other_accelerator: bool = False


class WorkerRange(Closed):
    """How many workers a fleet may have.

    Attributes:
        min: The fewest that it starts with.
        max: The most that it grows to where there is room.
    """

    min: Annotated[int, Field(ge=1, le=4096)] = 1
    max: Annotated[int, Field(ge=1, le=4096)] = 1

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) must not be below min ({self.min})")
        return self


def _as_range(value: object) -> object:
    is_whole = type(value) is int or (type(value) is float and value.is_integer())
    return {"min": int(value), "max": int(value)} if is_whole else value  # type: ignore[call-overload]


Workers = Annotated[
    WorkerRange, BeforeValidator(_as_range, json_schema_input_type=int | WorkerRange)
]


class SampleResources(Resources):
    """The workers of a sampling fleet.

    Attributes:
        num_workers: A number, or a least and a largest one as {min: 1, max: 16}.
    """

    num_workers: Workers = Field(default_factory=WorkerRange)
