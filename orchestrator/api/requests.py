"""Jobs as a program asks for them: the fields of a job file, checked as a job file is."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ModelWrapValidatorHandler, PrivateAttr, model_validator

from orchestrator.errors import BadInputError
from orchestrator.specs import evaluate, likelihood, sample, train
from orchestrator.specs.document import Document, load_document
from orchestrator.specs.files import JobFile, job_file_of
from orchestrator.specs.kinds import checked_job
from orchestrator.specs.yaml_nodes import Location


class _Asked(BaseModel):
    """Checks what is written in a program as if it stood in a file: the same words, one line."""

    _written: dict[str, object] = PrivateAttr(default_factory=dict)

    @property
    def written(self) -> dict[str, object]:
        """What was given, in plain JSON types, without defaults."""
        return self._written

    @model_validator(mode="wrap")
    @classmethod
    def _as_a_file(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(given, cls):
            return given
        kind = cls.model_fields["kind"].default
        written = {"kind": kind, **plain_values(given)}
        spec = checked_job(Document(cls.__name__, written, {}))
        made = handler({name: getattr(spec, name) for name in written})
        made._written = written  # noqa: SLF001  # one of its own
        return made


class TrainJob(_Asked, train.TrainJob):
    """A training, as `kind: train` of a job file.

    A section is a mapping, or an object such as `ddpm.config.TrainingConfig`.
    """

    kind: Literal["train"] = "train"


class SampleJob(_Asked, sample.SampleJob):
    """A sample set, as `kind: sample` of a job file."""

    kind: Literal["sample"] = "sample"


class EvaluateJob(_Asked, evaluate.EvaluateJob):
    """An evaluation of a sample set, as `kind: evaluate` of a job file."""

    kind: Literal["evaluate"] = "evaluate"


class LikelihoodJob(_Asked, likelihood.LikelihoodJob):
    """The likelihood of real images under a model, as `kind: likelihood` of a job file."""

    kind: Literal["likelihood"] = "likelihood"


Request = TrainJob | SampleJob | EvaluateJob | LikelihoodJob | Mapping[str, object] | Path | str


def job_file(request: Request, environment: Mapping[str, str]) -> tuple[JobFile, Path]:
    """Return what is asked for as a job file, and the folder that relative paths start from.

    Args:
        request: A job; a mapping as a job file holds it, for pipelines and sweeps, too; or the path
            of a job file.
        environment: What `${NAME}` in a file may name.

    Raises:
        BadInputError: It is wrong; one line that says where and what to do.
    """
    if isinstance(request, str | Path):
        path = Path(request)
        return job_file_of(load_document(path, environment)), path.parent
    written = request.written if isinstance(request, _Asked) else plain_values(request)
    name = written.get("name")
    source = f"{type(request).__name__} {name}" if isinstance(name, str) else "the job"
    places = dict.fromkeys(_places(written), 0)  # written here, and on no line of a file
    return job_file_of(Document(source, written, places)), Path()


def plain_values(value: object) -> dict[str, object]:
    """Return a mapping in plain JSON types, whatever objects it holds. Raises: BadInputError."""
    found = _plain(value)
    if not isinstance(found, dict):
        raise BadInputError(f"a job is a mapping of fields, not {type(value).__name__}")
    return found


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(_given(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise BadInputError(f"a field of a job cannot be {type(value).__name__}: {value!r}")


def _given(value: Any) -> dict[str, object]:
    """Return the fields of a configuration that are not its defaults."""
    named = {field.name: field.default for field in dataclasses.fields(value)}
    return {
        name: getattr(value, name)
        for name, default in named.items()
        if default is dataclasses.MISSING or getattr(value, name) != default
    }


def _places(value: Any, above: Location = ()) -> list[Location]:
    """Return the way to each value, as a document knows those that were written."""
    if not isinstance(value, dict):
        return []
    found: list[Location] = []
    for key, inner in value.items():
        found += [(*above, key), *_places(inner, (*above, key))]
    return found
