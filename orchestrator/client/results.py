"""What evaluations wrote, read from the store: those that have a result, and those that have none.

A group may still be at work, and a training have checkpoints that nobody has compared yet.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.client.evaluations import Evaluated, Measured
from orchestrator.counts import counted, does, few
from orchestrator.errors import BadInputError, JobNotFoundError
from orchestrator.jobs.lookup import find_job_id
from orchestrator.jobs.prices import cost_of_jobs
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_submission
from orchestrator.lifecycle.cost import Cost
from orchestrator.lifecycle.curves import evaluated_steps
from orchestrator.lifecycle.state import JobState
from orchestrator.specs.evaluate import EvaluateJob
from orchestrator.specs.group import GroupJob
from orchestrator.specs.job import Job
from orchestrator.specs.on_the_way import evaluation_at, metrics_of
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.train import TrainJob
from orchestrator.store.codec import Codec
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

NOT_BEGUN = "not begun"
_MOST_NAMED = 2
_OF_A_CHAIN = frozenset(
    (
        *("method", "eta", "spacing", "variance", "guidance_scale", "guidance_interval"),
        *("clip_denoised", "keep_epsilon", "trajectory"),
    )
)


@dataclass(frozen=True, kw_only=True)
class Missing:
    """An evaluation without a result.

    Attributes:
        job_id: Its id, which may be that of a job that is still to be made.
        state: Its state, or "not begun".
        message: What its record says beside that.
    """

    job_id: str
    state: str
    message: str = ""

    @property
    def shown_state(self) -> str:
        """What it is: "RUNNING", or "FAILED: the reason"."""
        return f"{self.state}: {self.message}" if self.message else self.state


@dataclass(frozen=True, kw_only=True)
class Evaluations:
    """What is known of the evaluations that were asked for.

    Attributes:
        rows: Those that have a result; at least one.
        missing: The others.
    """

    rows: Sequence[Evaluated]
    missing: Sequence[Missing] = ()

    @property
    def missing_text(self) -> str:
        """What is missing, in one line: "2 of 9 evaluations have no result: ..."; "" of nothing."""
        if not self.missing:
            return ""
        total = len(self.rows) + len(self.missing)
        have = does(len(self.missing), "have")
        return (
            f"{len(self.missing)} of {counted(total, 'evaluation')} {have} no result: "
            f"{_by_state(self.missing)}"
        )


def _by_state(missing: Iterable[Missing]) -> str:
    """Return "RUNNING e3; not begun e5, e6 and 20 more"."""
    states: dict[str, list[str]] = {}
    for one in missing:
        states.setdefault(one.shown_state, []).append(one.job_id)
    return "; ".join(f"{state} {few(ids, _MOST_NAMED)}" for state, ids in states.items())


def read_evaluations(store: ObjectStore, jobs: Iterable[str]) -> Evaluations:
    """Return what evaluations found.

    Args:
        store: Where the jobs are.
        jobs: Ids or names: of an evaluation, of a group that has some, or of a training whose
            checkpoints are evaluated on the way.

    Raises:
        JobNotFoundError: There is no such job.
        BadInputError: One is nothing of that, or there is no result at all.
    """
    records = RecordStore(store)
    rows: list[Evaluated] = []
    missing: list[Missing] = []
    for name in jobs:
        for job_id in _evaluations_of(records, find_job_id(store, name)):
            result = _RESULT.value(store, JobPaths(job_id).evaluation)
            if result is None:
                missing.append(_missing(records, job_id))
            else:
                rows.append(_row(store, records, job_id, result))
    if not rows:
        raise BadInputError(f"there is no result to show: {_by_state(missing)}")
    return Evaluations(rows=rows, missing=missing)


def _evaluations_of(records: RecordStore, job_id: str) -> list[str]:
    """Return the ids of the evaluations that a job is, or has."""
    submission = read_submission(records, job_id)
    if isinstance(submission, GroupJob):
        parts = ((child.job_id, child.spec) for child in submission.children)
        evaluations = [one for child_id, spec in parts for one in _of_job(child_id, spec)]
        if not evaluations:
            raise BadInputError(f"{job_id} is a {submission.kind} without an evaluate step")
        return evaluations
    evaluations = list(_of_job(job_id, submission))
    if not evaluations:
        raise BadInputError(
            f"{job_id} is a {submission.kind} job; give evaluations, or a training that has "
            "evaluation.metrics"
        )
    return evaluations


def _of_job(job_id: str, spec: Job) -> Iterator[str]:
    if isinstance(spec, EvaluateJob):
        yield job_id
    elif (asked := metrics_of(spec)) is not None:
        training, metrics = asked
        for step in evaluated_steps(metrics.every_steps, training.training.num_steps):
            yield evaluation_at(job_id, training.name, step).evaluate_id


def _missing(records: RecordStore, job_id: str) -> Missing:
    try:
        record = records.read(job_id).record
    except JobNotFoundError:
        return Missing(job_id=job_id, state=NOT_BEGUN)
    message = record.message if record.state is JobState.FAILED else ""
    return Missing(job_id=job_id, state=record.state, message=message)


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
    def method(self) -> str:
        """How the classes were found, and how often that is right."""
        message = f"the class of most of the {self.k} nearest training images"
        if self.accuracy is not None:
            message += f"; right of {self.accuracy:.3f} of {self.num_held_out} held-out images"
        return message


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


def _row(store: ObjectStore, records: RecordStore, job_id: str, result: _Result) -> Evaluated:
    samples, classes = result.of.job_id, result.classes
    nearest = f"{JobPaths(job_id).folder}evaluation-nearest.png"
    origin = _origin(records, samples)
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
        classifier=classes.method if classes.names else "",
        cost=cost_of_jobs(store, [samples], origin.num_samples) if samples else None,
        training_cost=_training_cost(store, origin.training),
        settings=origin.settings,
        training=origin.training,
        step=origin.step,
        recipe=origin.recipe,
        training_s=origin.training_s,
    )


def _training_cost(store: ObjectStore, job_id: str) -> Cost | None:
    return cost_of_jobs(store, [job_id]) if job_id else None


@dataclass(frozen=True, kw_only=True)
class _Origin:
    """How a set was drawn and from what, by the fields of `Evaluated`; nothing if its job is gone.

    Attributes:
        num_samples: Images that were asked for.
    """

    settings: Mapping[str, object] = field(default_factory=dict)
    training: str = ""
    step: int = 0
    recipe: str = ""
    training_s: float | None = None
    num_samples: int = 0


def _origin(records: RecordStore, job_id: str) -> _Origin:
    """Return where a set comes from.

    The settings say of which family the model is, as far as its training is there.
    """
    try:
        spec, record = read_submission(records, job_id), records.read(job_id).record
    except JobNotFoundError:
        return _Origin()
    if not isinstance(spec, SampleJob):
        return _Origin()
    sampling = spec.model_dump(mode="json")["sampling"]
    settings = {**sampling, "num_samples": spec.num_samples, "weights": spec.model.weights}
    training = record.model.job_id if record.model else ""
    step = record.model.step if record.model else 0
    of_set = _Origin(settings=settings, training=training, step=step, num_samples=spec.num_samples)
    trained = _training_of(records, training)
    if trained is None:
        return of_set
    alike = trained.model_copy(update={"name": "x", "training": replace(trained.training, seed=0)})
    return replace(
        of_set,
        settings=settings_of(trained.model.family, settings),
        recipe=alike.spec_hash,
        training_s=_seconds_of(records, training),
    )


def settings_of(family: str, settings: Mapping[str, object]) -> Mapping[str, object]:
    """Return how a set was drawn: the settings of a reverse chain only of a family with one."""
    meant = {k: v for k, v in settings.items() if family == "ddpm" or k not in _OF_A_CHAIN}
    return {"family": family, **meant}


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
