"""What a job has to say to MLflow, as lines in the store; MLflow itself is never called here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, TypeAdapter, ValidationError

from orchestrator.store.keys import AttemptPaths
from orchestrator.store.numbered import NumberedFolder
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True, kw_only=True)
class MetricsLine:
    """Values at a step.

    Attributes:
        at_ms: When they were measured, in ms since the epoch.
        step: The training step; of a fleet the seconds since the job was submitted.
        values: By name.
        by_time: They belong to a time more than to a step, as the machine's load and a fleet's
            pace do, so a step that is done again has new ones.
    """

    at_ms: int
    step: int
    values: Mapping[str, float]
    by_time: bool = False
    kind: Literal["metrics"] = "metrics"


@dataclass(frozen=True, kw_only=True)
class ImageLine:
    """An image that lies in the store.

    Attributes:
        at_ms: When it was made.
        step: The step it shows.
        path: Its path among the run's artifacts.
        key: Where it lies.
    """

    at_ms: int
    step: int
    path: str
    key: str
    kind: Literal["image"] = "image"


@dataclass(frozen=True, kw_only=True)
class ParamsLine:
    """Settings; the first value of a name stands."""

    values: Mapping[str, str]
    kind: Literal["params"] = "params"


@dataclass(frozen=True, kw_only=True)
class TagsLine:
    """Marks; the last value of a name stands."""

    values: Mapping[str, str]
    kind: Literal["tags"] = "tags"


@dataclass(frozen=True, kw_only=True)
class DatasetLine:
    """A data set that the job reads.

    Attributes:
        name: Its name.
        digest: SHA-256 of its contents.
        source: Where it lies.
        context: What it is used for: "training", "evaluation".
        profile: What is known of it: number of images, shape, ...
    """

    name: str
    digest: str
    source: str
    context: str = "training"
    profile: Mapping[str, object] = field(default_factory=dict)
    kind: Literal["dataset"] = "dataset"


@dataclass(frozen=True, kw_only=True)
class ModelLine:
    """A trained model that is to be registered.

    Attributes:
        name: Name in the registry.
        source: URI of the folder of its files.
        step: Training steps.
        sha256: Hash of its files.
        tags: What else to write to the version.
    """

    name: str
    source: str
    step: int
    sha256: str
    tags: Mapping[str, str] = field(default_factory=dict)
    kind: Literal["model"] = "model"


TrackingLine = Annotated[
    MetricsLine | ImageLine | ParamsLine | TagsLine | DatasetLine | ModelLine,
    Discriminator("kind"),
]
# A group's children have runs of their own, and what has nothing to do with the images drawn would
# hide what has; an address to notify is nobody's business there.
_NO_PARAMS = frozenset({"children", "retry", "notify"})
# JSON has no infinities and no NaN, and a loss that is one of them has to be recorded.
_LINE: TypeAdapter[TrackingLine] = TypeAdapter(
    TrackingLine, config=ConfigDict(ser_json_inf_nan="strings")
)


def encode_line(line: TrackingLine) -> bytes:
    """Return a line as JSON, without its end."""
    return _LINE.dump_json(line)


def decode_lines(body: bytes) -> tuple[list[TrackingLine], int]:
    """Return the lines of a segment, and how many could not be read."""
    lines: list[TrackingLine] = []
    texts = body.splitlines()
    for text in texts:
        try:
            lines.append(_LINE.validate_json(text))
        except ValidationError:
            continue
    return lines, len(texts) - len(lines)


def segments(store: ObjectStore, paths: AttemptPaths) -> NumberedFolder:
    """Return the numbered segments of lines of an attempt."""
    return NumberedFolder(store, paths.metrics, ".jsonl")


def params_of(settings: Mapping[str, object]) -> dict[str, str]:
    """Return a job's settings as MLflow's params, whoever logs them."""
    return flattened({name: value for name, value in settings.items() if name not in _NO_PARAMS})


def flattened(value: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Return nested settings as one level of names with dots, values as text."""
    flat: dict[str, str] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= flattened(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(inner)
    return flat
