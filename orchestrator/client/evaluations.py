"""What evaluations found, side by side: one row an evaluated sample set."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.errors import BadInputError, JobNotFoundError
from orchestrator.jobs.lookup import find_job_id
from orchestrator.jobs.prices import cost_of_jobs
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_submission
from orchestrator.lifecycle.cost import Cost
from orchestrator.lifecycle.state import JobRecord
from orchestrator.specs.evaluate import EvaluateJob
from orchestrator.specs.group import GroupJob
from orchestrator.specs.job import SampleJob, TrainJob
from orchestrator.store.codec import Codec
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

MEASURES = (
    "fid",
    "fd",
    "fid-statistics",
    "fd-statistics",
    "kid",
    "precision",
    "recall",
    "density",
    "coverage",
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One metric of one set.

    Attributes:
        value: What it is.
        spread: Its standard error.
        floor: What real images get against real ones.
        floor_spread: How that varies.
        floor_images: Real images on each side of it.
        is_at_floor: Whether the two cannot be told apart.
        num_samples: Samples that it compares.
        num_reference: With so many real images.
        k: Neighbours; None for a metric without.
        lower_is_better: Whether.
    """

    value: float
    spread: float = 0.0
    floor: float = 0.0
    floor_spread: float = 0.0
    floor_images: int = 0
    is_at_floor: bool = False
    num_samples: int = 0
    num_reference: int = 0
    k: int | None = None
    lower_is_better: bool = False


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A row of a comparison.

    Attributes:
        job_id: The evaluation.
        samples: The sample set's job.
        training: The training's job, and its step; "" where it is gone.
        recipe: Hash of what the training was asked, its seed and name apart; "" where it is gone.
        reference: What it was compared with.
        extractor: What the features are of.
        settings: How the set was drawn, by the sample job's keys.
        metrics: By name.
        memorisation: Numbers by name.
        speed: Numbers of the sample job by name.
        cost: What the sample job's GPUs cost; None without prices, and of a mean of sets.
        training_cost: The same of the training.
        training_s: Seconds that the training's attempts took; None where it is gone.
        classes: Share of the samples by class; {} where the real images have no labels.
        real_classes: Share of the real images.
        classifier: How the classes were found, and how often that is right; "" without labels.
        num_sets: Sets that the row is the mean of, which differ in their seeds.
        nearest: Key of the picture of the samples nearest to training images.
    """

    job_id: str
    samples: str
    training: str = ""
    step: int = 0
    recipe: str = ""
    reference: str
    extractor: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Measured] = field(default_factory=dict)
    memorisation: Mapping[str, float] = field(default_factory=dict)
    speed: Mapping[str, float] = field(default_factory=dict)
    cost: Cost | None = None
    training_cost: Cost | None = None
    training_s: float | None = None
    classes: Mapping[str, float] = field(default_factory=dict)
    real_classes: Mapping[str, float] = field(default_factory=dict)
    classifier: str = ""
    num_sets: int = 1
    nearest: str = ""

    def metric(self, measure: str) -> Measured | None:
        """Return the metric of a measure, whatever its extractor."""
        names = (measure, f"{measure}-{self.extractor}")
        return next((self.metrics[name] for name in names if name in self.metrics), None)


def read_evaluations(store: ObjectStore, jobs: Iterable[str]) -> list[Evaluated]:
    """Return what evaluations found; of a group, those of all its evaluations.

    Args:
        store: Where the jobs are.
        jobs: Ids or names.

    Raises:
        JobNotFoundError: There is no such job.
        BadInputError: One is no evaluation, or has no result.
    """
    records = RecordStore(store)
    found: list[Evaluated] = []
    for name in jobs:
        job_id = find_job_id(store, name)
        submission = read_submission(records, job_id)
        if isinstance(submission, GroupJob):
            ids = [
                child.job_id for child in submission.children if isinstance(child.spec, EvaluateJob)
            ]
            if not ids:
                raise BadInputError(f"{job_id} is a {submission.kind} without an evaluate step")
        elif isinstance(submission, EvaluateJob):
            ids = [job_id]
        else:
            raise BadInputError(f"{job_id} is a {submission.kind} job; give evaluations")
        found.extend(_read(store, records, each) for each in ids)
    return found


@dataclass(frozen=True)
class _Named:
    """What of a set or an extractor is shown."""

    name: str = ""
    job_id: str = ""


@dataclass(frozen=True)
class _Classes:
    """Which classes samples are of; without names where the real images have no labels."""

    names: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    real_shares: tuple[float, ...] = ()
    k: int = 0
    accuracy: float | None = None
    num_held_out: int = 0

    @property
    def told(self) -> str:
        """How the classes were found, and how often that is right."""
        told = f"the class of most of the {self.k} nearest training images"
        if self.accuracy is not None:
            told += f"; right of {self.accuracy:.3f} of {self.num_held_out} held-out images"
        return told


@dataclass(frozen=True, kw_only=True)
class _Result:
    """What an evaluation wrote, as far as it is shown."""

    of: _Named
    against: _Named
    extractor: _Named
    scores: Mapping[str, Measured]
    memorisation: Mapping[str, float] = field(default_factory=dict)
    speed: Mapping[str, float] = field(default_factory=dict)
    classes: _Classes = field(default_factory=_Classes)


_RESULT = Codec(_Result, "evaluation")


def _read(store: ObjectStore, records: RecordStore, job_id: str) -> Evaluated:
    result = _RESULT.value(store, JobPaths(job_id).evaluation)
    if result is None:
        raise BadInputError(f"evaluation {job_id} has no result: {_state(records, job_id)}")
    samples, classes = result.of.job_id, result.classes
    nearest = f"{JobPaths(job_id).folder}evaluation-nearest.png"
    origin = _origin(records, samples)
    num_images = origin.get("settings", {}).get("num_samples", 0)
    return Evaluated(
        job_id=job_id,
        samples=samples,
        reference=result.against.name,
        extractor=result.extractor.name,
        metrics=result.scores,
        memorisation=result.memorisation,
        speed=result.speed,
        nearest=nearest if store.exists(nearest) else "",
        classes=dict(zip(classes.names, classes.shares, strict=True)),
        real_classes=dict(zip(classes.names, classes.real_shares, strict=True)),
        classifier=classes.told if classes.names else "",
        cost=cost_of_jobs(store, [samples], num_images) if samples else None,
        training_cost=_training_cost(store, origin.get("training", "")),
        **origin,
    )


def _training_cost(store: ObjectStore, job_id: str) -> Cost | None:
    return cost_of_jobs(store, [job_id]) if job_id else None


def _state(records: RecordStore, job_id: str) -> str:
    try:
        record: JobRecord = records.read(job_id).record
    except JobNotFoundError:
        return "it is not submitted yet"
    return f"it is {record.state}" + (f": {record.message}" if record.message else "")


def _origin(records: RecordStore, job_id: str) -> dict[str, Any]:
    """Return how a set was drawn and from what; {} if its job is gone.

    The settings say of which family the model is, as far as its training is there.
    """
    try:
        spec, record = read_submission(records, job_id), records.read(job_id).record
    except JobNotFoundError:
        return {}
    if not isinstance(spec, SampleJob):
        return {}
    told = spec.model_dump(mode="json")
    settings = {**told["sampling"], "num_samples": spec.num_samples, "weights": spec.model.weights}
    training = record.model.job_id if record.model else ""
    step = record.model.step if record.model else 0
    trained = _training_of(records, training)
    if trained is None:
        return {"settings": settings, "training": training, "step": step}
    alike = trained.model_copy(update={"name": "x", "training": replace(trained.training, seed=0)})
    return {
        "settings": {"family": trained.model.family, **settings},
        "training": training,
        "step": step,
        "recipe": alike.spec_hash,
        "training_s": _seconds_of(records, training),
    }


def _seconds_of(records: RecordStore, job_id: str) -> float | None:
    """Return how long a job's attempts took; None where one goes on, or nothing is known."""
    try:
        attempts = records.read(job_id).record.attempts
    except JobNotFoundError:
        return None
    ends = [(one.started_at, one.ended_at) for one in attempts]
    took = [(end - start).total_seconds() for start, end in ends if end is not None]
    return sum(took) if took and len(took) == len(ends) else None


def _training_of(records: RecordStore, job_id: str) -> TrainJob | None:
    try:
        spec = read_submission(records, job_id) if job_id else None
    except JobNotFoundError:
        return None
    return spec if isinstance(spec, TrainJob) else None


def differing(rows: Iterable[Evaluated]) -> list[str]:
    """Return the settings in which rows differ, in the order of their keys."""
    all_rows = list(rows)
    keys = dict.fromkeys(key for row in all_rows for key in row.settings)
    return [key for key in keys if len({str(row.settings.get(key)) for row in all_rows}) > 1]


def measures_of(rows: Iterable[Evaluated]) -> Iterator[str]:
    """Yield the measures that at least one row has."""
    all_rows = list(rows)
    yield from (m for m in MEASURES if any(row.metric(m) for row in all_rows))
