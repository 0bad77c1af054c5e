"""Reads job files of every kind, and keeps where each value of one stands."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.errors import BadInputError
from orchestrator.lifecycle.state import GROUP_KINDS
from orchestrator.specs.checks import Gives, Remark, remarks_on
from orchestrator.specs.document import Document, load_document
from orchestrator.specs.envelope import Asked
from orchestrator.specs.group import GroupJob
from orchestrator.specs.group_files import (
    PipelineFile,
    SweepFile,
    run_in_words,
    unfold_pipeline,
    unfold_sweep,
)
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import JOB_KINDS, Input, checked_job, one_of
from orchestrator.specs.located_errors import validated
from orchestrator.specs.matrix import unfold_matrix
from orchestrator.specs.yaml_nodes import Location


@dataclass(frozen=True)
class JobFile:
    """A checked job file, which still knows where each value stands.

    Attributes:
        document: The file.
        spec: What it asks for.
        parts: The document of each job of a group, by its step; of a lone job, that of "".
        warnings: What would work but looks odd, a line each.
    """

    document: Document
    spec: Job | GroupJob
    parts: Mapping[str, Document]
    warnings: tuple[str, ...] = ()

    def jobs(self) -> Iterator[tuple[str, Job]]:
        """Yield each job, and its step, "" for a lone one."""
        if not isinstance(self.spec, GroupJob):
            yield "", self.spec
            return
        yield from ((child.step, child.spec) for child in self.spec.children)

    @property
    def asked(self) -> Asked:
        """What the user wrote, with the images of each job as they are pinned."""
        jobs = dict(self.jobs())
        parts = {"": self.document.value, **{s: part.value for s, part in self.parts.items()}}
        pinned = {step: _pinned(part, jobs.get(step)) for step, part in parts.items()}
        return Asked(pinned, dict(self.document.variables))

    def fault(self, step: str, places: Sequence[Location], message: str) -> BadInputError:
        """Return the error that says what is wrong with a job, at one of these places.

        Args:
            step: The job's step.
            places: Where it may be; the last one that was written is pointed at.
            message: What is wrong, and what to do.
        """
        return BadInputError(self._located(step, places, message) + self._settings(step))

    def checked(self, look: Callable[[str, Job, Gives], Iterable[Remark]]) -> "JobFile":
        """Return the file with what a look at each of its jobs has to say.

        Args:
            look: Takes a step, its job, and what tells whether a field of it was written.

        Raises:
            BadInputError: A job cannot work.
        """
        warnings = dict.fromkeys(self.warnings)
        for step, job in self.jobs():
            for remark in look(step, job, self.parts[step].gives):
                if remark.is_fatal:
                    raise self.fault(step, remark.places, remark.message)
                warnings[self._located(step, remark.places, remark.message)] = None
        return replace(self, warnings=tuple(warnings))

    def _located(self, step: str, places: Sequence[Location], message: str) -> str:
        part = self.parts[step]
        written = [place for place in places if part.gives(place)]
        return f"{part.where((written or list(places))[-1])}: {message}"

    def _settings(self, step: str) -> str:
        if not isinstance(self.spec, GroupJob):
            return ""
        settings = next(c.settings for c in self.spec.children if c.step == step)
        return run_in_words(step, settings)


def _pinned(part: Mapping[str, Any], job: Job | None) -> dict[str, Any]:
    images = job.dataset_input if job is not None else None
    if images is None:
        return dict(part)
    return {**part, Input.DATASET.value: images.model_dump(mode="json", exclude_unset=True)}


def load_submission(path: Path, overrides: Sequence[str] = ()) -> Job | GroupJob:
    """Read and check a job file of any kind; see `load_job_file`. Raises: BadInputError."""
    return load_job_file(path, overrides).spec


def load_job_file(
    path: Path, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> JobFile:
    """Read and check a job file of any kind.

    Args:
        path: The file.
        overrides: `a.b=value` each, as `--set` takes them.
        environment: What `${NAME}` in it may name.

    Raises:
        BadInputError: One line that names file, line and key, and what to do.
    """
    return job_file_of(load_document(path, environment), overrides)


def job_file_of(document: Document, overrides: Sequence[str] = ()) -> JobFile:
    """Check a document as a job file of any kind. Raises: BadInputError."""
    return _job_file(document, overrides).checked(lambda _, job, gives: remarks_on(job, gives))


def _job_file(document: Document, overrides: Sequence[str]) -> JobFile:
    if document.value.get("kind") == "sweep":
        unfold_matrix(document)
    for option in overrides:
        document.override(option)
    kind = document.value.get("kind")
    if kind == "pipeline":
        return JobFile(document, *unfold_pipeline(document, validated(document, PipelineFile)))
    if kind == "sweep":
        return JobFile(document, *unfold_sweep(document, validated(document, SweepFile)))
    if kind not in JOB_KINDS:
        known = one_of([*JOB_KINDS, *GROUP_KINDS])
        raise document.fault(("kind",), f"kind must be {known}, not {kind!r}")
    return JobFile(document, checked_job(document), {"": document})
