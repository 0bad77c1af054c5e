"""The kinds of jobs, and how a file or a stored spec becomes a job of one of them.

A further kind is a row of `JOB_KINDS`, a class of its own beside `TrainJob`, and a room with its
driver; nothing else asks for a kind by its name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestrator.errors import BadInputError
from orchestrator.specs.document import Document, load_document
from orchestrator.specs.evaluate import EvaluateJob
from orchestrator.specs.job import Job
from orchestrator.specs.likelihood import LikelihoodJob
from orchestrator.specs.located_errors import validated
from orchestrator.specs.microbatches import with_fitting_microbatch
from orchestrator.specs.prepare import PrepareJob
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.train import TrainJob


class Input(StrEnum):
    """What a job may read, by the field of its spec that names it."""

    DATASET = "dataset"
    MODEL = "model"
    INIT = "init"
    SAMPLES = "of"
    REFERENCE = "against"


class Output(StrEnum):
    """What a job leaves in the store."""

    CHECKPOINTS = "checkpoints"
    SAMPLES = "samples"
    DATASET = "dataset"


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """What others need to know of a kind of job; how much there is to do, `Job.total` says.

    Attributes:
        spec: What a user may ask for.
        driver: The module that Ray starts for each attempt: STORE_URI JOB_ID ATTEMPT.
        unit: What is counted: "steps", "images".
        noun: What messages call what it makes: "training", "sample set".
        inputs: What it reads.
        output: What it leaves; None for nothing that another job could read.
        completed: Fills in what somebody left out and what he wrote decides.
    """

    spec: type[Job]
    driver: str
    unit: str
    noun: str
    inputs: frozenset[Input]
    output: Output | None
    completed: Callable[[dict[str, Any]], dict[str, Any]] = dict


JOB_KINDS: Mapping[str, JobKind] = {
    "train": JobKind(
        spec=TrainJob,
        driver="orchestrator.training.driver",
        unit="steps",
        noun="training",
        inputs=frozenset({Input.DATASET, Input.INIT}),
        output=Output.CHECKPOINTS,
    ),
    "sample": JobKind(
        spec=SampleJob,
        driver="orchestrator.sampling.driver",
        unit="images",
        noun="sample set",
        inputs=frozenset({Input.MODEL}),
        output=Output.SAMPLES,
        completed=with_fitting_microbatch,
    ),
    "evaluate": JobKind(
        spec=EvaluateJob,
        driver="orchestrator.evaluation.driver",
        unit="images",
        noun="evaluation",
        inputs=frozenset({Input.DATASET, Input.SAMPLES, Input.REFERENCE}),
        output=None,
    ),
    "likelihood": JobKind(
        spec=LikelihoodJob,
        driver="orchestrator.evaluation.likelihood_driver",
        unit="images",
        noun="likelihood",
        inputs=frozenset({Input.DATASET, Input.MODEL}),
        output=None,
    ),
    "prepare": JobKind(
        spec=PrepareJob,
        driver="orchestrator.preparation.driver",
        unit="images",
        noun="data set",
        inputs=frozenset(),
        output=Output.DATASET,
    ),
}


def reads(kind: object, what: Input) -> bool:
    """Tell whether jobs of a kind read something; a kind that nobody knows reads nothing."""
    row = JOB_KINDS.get(str(kind))
    return row is not None and what in row.inputs


def reads_model(kind: object) -> bool:
    """Tell whether jobs of a kind may draw or start from a trained model."""
    return reads(kind, Input.MODEL) or reads(kind, Input.INIT)


def leaves(kind: object, what: Output) -> bool:
    """Tell whether jobs of a kind leave something."""
    row = JOB_KINDS.get(str(kind))
    return row is not None and row.output is what


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


def stored_job(value: Mapping[str, object]) -> Job:
    """Return the job that a stored spec holds. Raises: BadInputError."""
    kind = str(value.get("kind"))
    if kind not in JOB_KINDS:
        raise BadInputError(f"this version knows no job of kind {kind!r}")
    return _of_kind(kind, Document("spec.json", dict(value), {}))


def checked_job(document: Document) -> Job:
    """Return the job that a document describes.

    Raises:
        BadInputError: One line that names file, line and key, and what to do.
    """
    kind = document.value.get("kind")
    if not isinstance(kind, str) or kind not in JOB_KINDS:
        raise document.fault(("kind",), f"kind must be {one_of(JOB_KINDS)}, not {kind!r}")
    value = JOB_KINDS[kind].completed(document.value)
    spec = _of_kind(kind, replace(document, value=value))
    model = spec.model_input
    if model is not None and model.step is not None and model.job is None:
        field = spec.model_field
        message = f"{field}.step goes with {field}.job; take one of the two out"
        raise document.fault((field, "step"), message)
    return spec


def _of_kind(kind: str, document: Document) -> Job:
    return validated(document, JOB_KINDS[kind].spec)


def one_of(words: Sequence[str] | Mapping[str, object]) -> str:
    """Return words as a choice: "a", "a or b", "a, b or c"."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
