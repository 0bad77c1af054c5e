"""What is to be seen of a store's jobs from outside: the queue, GPU-hours, pace, commits, faults.

Totals count from the start of the orchestrator's loop, as Prometheus expects of them. Time is
split by what was seen in each round of the loop, about a second long.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum

from orchestrator.cluster.exporter import Metric, Values
from orchestrator.controller.adoption import LiveJob
from orchestrator.jobs.heartbeat import Heartbeat
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.retry import BUDGETS
from orchestrator.lifecycle.state import JobRecord, JobState, Reason
from orchestrator.scheduling.nodes import NodeCapacity
from orchestrator.specs.kinds import JOB_KINDS, Output, leaves

QUEUE_DEPTH = Metric("ddpmctl_queue_depth", "Jobs that wait.", ("queue", "priority"))
QUEUE_AGE = Metric(
    "ddpmctl_queue_age_seconds",
    "Seconds since the oldest of the jobs that wait was submitted.",
    ("queue", "priority"),
)
JOBS = Metric("ddpmctl_jobs", "Jobs that have not ended.", ("state",))
GPU_HOURS = Metric(
    "ddpmctl_gpu_hours_total",
    "GPU-hours: useful; redone, work that an earlier attempt had done already; starting, given to "
    "attempts that do not work yet or no more; idle, given to nobody.",
    ("use",),
)
IMAGES = Metric("ddpmctl_images_per_second", "Images that jobs draw or read.", ("kind",))
SHARDS = Metric("ddpmctl_shards_per_second", "Shards of sample jobs, by their pace in images.")
STEPS = Metric("ddpmctl_steps_per_second", "Steps of trainings.")
CHECKPOINTS = Metric(
    "ddpmctl_checkpoints_total", "Checkpoints committed; two within a round count as one."
)
FAULTS = Metric("ddpmctl_faults_total", "Attempts that a fault ended.", ("cause",))
LOOP = Metric("ddpmctl_loop_seconds", "Seconds that the orchestrator's last round took.")
METRICS = (
    QUEUE_DEPTH,
    QUEUE_AGE,
    JOBS,
    GPU_HOURS,
    IMAGES,
    SHARDS,
    STEPS,
    CHECKPOINTS,
    FAULTS,
    LOOP,
)
FAULT_CAUSES = (*BUDGETS, Reason.BAD_INPUT, Reason.DIVERGED, Reason.USER_CODE)
LONGEST_ROUND_S = 60.0
"""A round that took longer says nothing of what went on in it: the machine may have slept."""


class Use(StrEnum):
    """What GPUs were used for."""

    USEFUL = "useful"
    REDONE = "redone"
    STARTING = "starting"
    IDLE = "idle"


class Measures:
    """Adds up what each round of the loop sees. Knows no clock."""

    def __init__(self) -> None:
        self._seen_at: datetime | None = None
        self._gpu_hours: dict[Use, float] = dict.fromkeys(Use, 0.0)
        self._faults: Counter[Reason] = Counter()
        self._checkpoints = 0
        self._last: dict[str, _Last] = {}
        self._now: dict[Metric, Values] = {}

    def look(self, jobs: Sequence[LiveJob], nodes: Iterable[NodeCapacity], now: datetime) -> None:
        """Take in what a round of the loop saw.

        Args:
            jobs: All that have not ended, and those that ended in this round.
            nodes: The nodes that are there.
            now: By the store's clock.
        """
        passed_s = 0.0 if self._seen_at is None else (now - self._seen_at).total_seconds()
        hours = passed_s / 3600 if 0 <= passed_s <= LONGEST_ROUND_S else 0.0
        self._seen_at = now
        held = sum(self._look_at(job, hours) for job in jobs)
        idle = sum(node.gpus for node in nodes) - held
        self._gpu_hours[Use.IDLE] += max(0.0, idle) * hours
        known = {job.record.job_id for job in jobs}
        self._last = {job_id: last for job_id, last in self._last.items() if job_id in known}
        self._now = {**_queue(jobs, now), **_pace(jobs)}

    def numbers(self, loop_s: float) -> Mapping[Metric, Values]:
        """Return all metrics.

        Args:
            loop_s: Seconds that the last round took.
        """
        return {
            **self._now,
            GPU_HOURS: {(use,): hours for use, hours in self._gpu_hours.items()},
            CHECKPOINTS: {(): float(self._checkpoints)},
            FAULTS: {(cause,): float(self._faults[cause]) for cause in FAULT_CAUSES},
            LOOP: {(): loop_s},
        }

    def _look_at(self, job: LiveJob, hours: float) -> float:
        """Count what a job did since the last round, and return the GPUs that it holds."""
        last, record = self._last.get(job.record.job_id), job.record
        if last is None:
            last = self._last[record.job_id] = _Last(record, job.said)
        gpus = record.attempts[-1].gpus if record.state.has_processes else 0.0
        self._gpu_hours[last.use_of(job)] += gpus * hours
        self._checkpoints += last.has_committed(job)
        self._faults.update(last.new_faults(record))
        return gpus


class _Last:
    """What was known of a job in the round before.

    Args:
        record: As it was met first.
        said: What its attempt said last, if any runs.
    """

    def __init__(self, record: JobRecord, said: Heartbeat | None) -> None:
        self.num_ended = _num_ended(record)
        self.attempt = record.attempt
        self.done: float = 0
        self.reached: float = max((a.progress for a in record.attempts), default=0)
        self.committed = max(self.reached, said.committed if said else 0)

    def use_of(self, job: LiveJob) -> Use:
        """Return what the job's GPUs were used for since then."""
        if job.record.attempt != self.attempt:
            self.attempt, self.reached = job.record.attempt, max(self.reached, self.done)
            self.done = 0
        said = job.said
        if job.record.state is not JobState.RUNNING or said is None:
            return Use.STARTING
        self.done = max(self.done, said.done)
        if said.phase in (Phase.STARTING, Phase.SMOKE):
            return Use.STARTING
        return Use.REDONE if said.done < self.reached else Use.USEFUL

    def has_committed(self, job: LiveJob) -> bool:
        """Tell whether a training has committed a checkpoint since then."""
        if job.said is None or not leaves(job.record.kind, Output.CHECKPOINTS):
            return False
        before, self.committed = self.committed, max(self.committed, job.said.committed)
        return self.committed > before

    def new_faults(self, record: JobRecord) -> list[Reason]:
        """Return the faults that ended attempts since then."""
        before, self.num_ended = self.num_ended, _num_ended(record)
        ended = record.attempts[before : self.num_ended]
        return [a.reason for a in ended if a.reason in FAULT_CAUSES and a.reason is not None]


def _num_ended(record: JobRecord) -> int:
    return sum(attempt.ended_at is not None for attempt in record.attempts)


def _queue(jobs: Iterable[LiveJob], now: datetime) -> dict[Metric, Values]:
    depth: Counter[tuple[str, ...]] = Counter()
    age: dict[tuple[str, ...], float] = {("default", "50"): 0.0}
    states = Counter({(state.value,): 0 for state in JobState if not state.has_ended})
    for job in jobs:
        record = job.record
        if record.state.has_ended:
            continue
        states[record.state.value,] += 1
        if record.state is JobState.QUEUED:
            tags = (record.queue, str(record.priority))
            depth[tags] += 1
            waited_s = (now - record.submitted_at).total_seconds()
            age[tags] = max(age.get(tags, 0.0), waited_s)
    depths = {tags: float(depth[tags]) for tags in age}
    return {QUEUE_DEPTH: depths, QUEUE_AGE: age, JOBS: {t: float(n) for t, n in states.items()}}


def _pace(jobs: Iterable[LiveJob]) -> dict[Metric, Values]:
    units = {kind: row.unit for kind, row in JOB_KINDS.items()}
    images: dict[tuple[str, ...], float]
    images = {(kind,): 0.0 for kind, unit in units.items() if unit == "images"}
    steps, shards = 0.0, 0.0
    for job in jobs:
        if job.record.state is not JobState.RUNNING or job.said is None:
            continue
        rate, kind = job.said.rate_per_s, job.record.kind
        if (kind,) in images:
            images[kind,] += rate
        elif units[kind] == "steps":
            steps += rate
        if job.spec.images_per_shard:
            shards += rate / job.spec.images_per_shard
    return {IMAGES: images, SHARDS: {(): shards}, STEPS: {(): steps}}
