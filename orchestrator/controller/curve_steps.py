"""Evaluates the checkpoints of trainings while these go on: makes the jobs, keeps the best.

The jobs are ordinary ones of the lowest priority whose ids follow from the training and the step.
A training stays in the queue's folder until those of its last checkpoint are made, an evaluation
until the checkpoints that it decides on are kept or let go; so an orchestrator that dies between
two steps makes none twice and forgets none.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.controller.adoption import LiveJob
from orchestrator.errors import JobNotFoundError
from orchestrator.jobs.curve import BEST, CurvePoint, best_point, curve_steps, read_curve
from orchestrator.jobs.inbox import Request, Verb, post_request
from orchestrator.jobs.records import CLOCKS_APART, Event, RecordStore
from orchestrator.jobs.submissions import create_job, read_spec
from orchestrator.jobs.troubles import Troubles
from orchestrator.lifecycle.curves import is_called_off, is_evaluated, steps_to_begin
from orchestrator.lifecycle.state import JobState
from orchestrator.specs.measuring import MetricsSpec
from orchestrator.specs.on_the_way import evaluation_at, jobs_at, metrics_of
from orchestrator.specs.train import TrainJob
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore


class CurveControl:
    """Makes, ends and takes account of the evaluations of trainings that go on.

    Args:
        store: The truth.
        records: Writes under the orchestrator's lease.
        renew: Renews that lease: after an outage there may be many checkpoints to begin with.
    """

    def __init__(self, store: ObjectStore, records: RecordStore, renew: Callable[[], None]) -> None:
        self._store = store
        self._records = records
        self._renew = renew
        self._troubles = Troubles(store, "curve")
        self._looked: dict[str, tuple[JobState, float]] = {}  # a training, as it was looked at last
        self._begun: dict[str, set[int]] = {}
        self._unseen: set[str] = set()  # made, and not in the loop's hands yet
        self._settled: set[str] = set()
        self._held: set[str] = set()  # asked again, and its checkpoint kept for it once more

    def follow(self, live: Mapping[str, LiveJob]) -> None:
        """Take what follows for each training with evaluations, and for those that have ended."""
        self._unseen -= live.keys()
        with self._troubles.round():
            for job in list(live.values()):
                self._serve(job, live)

    def _serve(self, job: LiveJob, live: Mapping[str, LiveJob]) -> None:
        job_id = job.record.job_id
        if _is_followed(job):
            went = self._troubles.serve(job_id, partial(self._follow, job, live))
        elif job.origin.trained_by and job.record.state.has_ended:
            self._renew()
            went = self._troubles.serve(job_id, partial(self._take_account, job))
        elif job.origin.trained_by and job.record.retried_at and job_id not in self._held:
            went = self._troubles.serve(job_id, partial(self._hold_again, job))
        else:
            return
        if went and job.record.state.has_ended:
            self._settled.add(job_id)

    def holds(self, job: LiveJob) -> bool:
        """Tell whether a job that has ended has to stay in the loop's hands for now."""
        is_concerned = _is_followed(job) or bool(job.origin.trained_by)
        return is_concerned and job.record.job_id not in self._settled

    def let_go(self, job_id: str) -> None:
        """Forget a job that has ended."""
        self._settled.discard(job_id)
        self._looked.pop(job_id, None)
        self._begun.pop(job_id, None)
        self._held.discard(job_id)

    def _follow(self, job: LiveJob, live: Mapping[str, LiveJob]) -> bool:
        """Make what is due, or end what was made; return whether nothing is left to do for now."""
        if is_called_off(job.record):
            return self._call_off(job, live) and self._forget(job)
        seen = (job.record.state, float(job.said.committed) if job.said else 0.0)
        asked = metrics_of(job.spec)
        if asked is not None and self._looked.get(job.record.job_id) != seen:
            for step in self._due(job, *asked):
                self._renew()
                self._begin(job, *asked, step)
            self._looked[job.record.job_id] = seen
        return True

    def _due(self, job: LiveJob, spec: TrainJob, metrics: MetricsSpec) -> list[int]:
        job_id = job.record.job_id
        committed = CheckpointStore(self._store, JobPaths(job_id)).steps()
        if job_id not in self._begun:
            self._begun[job_id] = set(curve_steps(self._store, job_id))
        begun = self._begun[job_id]
        every, total = metrics.every_steps, spec.training.num_steps
        return steps_to_begin(job.record, committed, begun, every, total)

    def _begin(self, job: LiveJob, spec: TrainJob, metrics: MetricsSpec, step: int) -> None:
        """Make the two jobs that evaluate a checkpoint, as far as they are not there."""
        job_id = job.record.job_id
        ids, owner = evaluation_at(job_id, spec.name, step), job.record.owner
        made = jobs_at(self._store.uri, job_id, spec, metrics, step, owner)
        new = {id_: one for id_, one in made.items() if not self._store.exists(JobPaths(id_).spec)}
        if new:  # else the checkpoint was held for them, and may be let go of: they may have ended
            CheckpointStore(self._store, JobPaths(job_id)).refer(step, ids.sample_id)
        for child_id, child in new.items():
            if create_job(self._records, child_id, child):
                self._unseen.add(child_id)
        self._tell_once(job, step, ids.evaluate_id)
        self._begun[job_id].add(step)

    def _tell_once(self, job: LiveJob, step: int, evaluate_id: str) -> None:
        """Write the event of an evaluation, also for somebody who made it and died before that."""
        made = self._records.read(evaluate_id).record
        message = f"step {step} is evaluated by {evaluate_id}"
        event = Event(at=self._store.now(), message=message, attempt=job.record.attempt)
        self._records.tell_once(job.record.job_id, event, made.submitted_at - CLOCKS_APART)

    def _call_off(self, job: LiveJob, live: Mapping[str, LiveJob]) -> bool:
        """Ask that a training's evaluations are cancelled; return whether all were asked."""
        asked = True
        for child in _children(job.record.job_id, live):
            if child.record.state.has_ended or is_called_off(child.record):
                continue
            asked = False
            request = Request(
                job_id=child.record.job_id,
                verb=Verb.CANCEL,
                attempt=child.record.attempt,
                at=self._store.now(),
                grace_s=job.record.stop_grace_s,
            )
            post_request(self._store, request)
        return asked and not self._unseen

    def _forget(self, job: LiveJob) -> bool:
        """Let go of what a training that was called off kept for evaluations that nobody makes."""
        asked = metrics_of(job.spec)
        if asked is None or not job.record.state.has_ended:
            return True
        spec, metrics = asked
        job_id, total = job.record.job_id, spec.training.num_steps
        checkpoints = CheckpointStore(self._store, JobPaths(job_id))
        for step in checkpoints.steps():
            ids = evaluation_at(job_id, spec.name, step)
            is_due = is_evaluated(step, metrics.every_steps, total)
            if is_due and not self._store.exists(JobPaths(ids.sample_id).spec):
                checkpoints.let_go(step, ids.sample_id)
        checkpoints.retain(spec.checkpoints.keep)
        return True

    def _hold_again(self, job: LiveJob) -> bool:
        """Keep the checkpoint of an evaluation that was asked for again, if it is still there."""
        training, step = job.origin.trained_by, job.origin.at_step
        spec = self._training_of(job)
        if spec is not None:
            ids = evaluation_at(training, spec.name, step)
            checkpoints = CheckpointStore(self._store, JobPaths(training))
            checkpoints.refer(step, ids.sample_id)
            if step not in checkpoints.steps():
                checkpoints.let_go(step, ids.sample_id)
        self._held.add(job.record.job_id)
        return True

    def _training_of(self, job: LiveJob) -> TrainJob | None:
        """Return the training that a job draws from or compares; None where it is gone."""
        try:
            asked = metrics_of(read_spec(self._records, job.origin.trained_by))
        except JobNotFoundError:
            return None
        return asked[0] if asked else None

    def _take_account(self, job: LiveJob) -> bool:
        """Let go of the checkpoint that an evaluation was about, unless it is the best so far.

        Whichever of the two jobs ends last does: one may be cancelled while the other is at work.
        """
        training, spec = job.origin.trained_by, self._training_of(job)
        if spec is None:
            return True
        ids = evaluation_at(training, spec.name, job.origin.at_step)
        if any(map(self._records.is_at_work, (ids.sample_id, ids.evaluate_id))):
            return True
        checkpoints = CheckpointStore(self._store, JobPaths(training))
        measure = spec.checkpoints.keep_best
        best = self._best(training, measure, checkpoints.steps()) if measure else None
        if best is not None:
            checkpoints.prefer(best.step, BEST)
        checkpoints.let_go(ids.step, ids.sample_id)
        checkpoints.retain(spec.checkpoints.keep)
        return True

    def _best(self, training: str, measure: str, standing: Collection[int]) -> CurvePoint | None:
        """Return the best of the checkpoints that are there; one may have gone before its point."""
        points = (point for point in read_curve(self._store, training) if point.step in standing)
        return best_point(points, measure)


def _is_followed(job: LiveJob) -> bool:
    """Tell whether a job's checkpoints are evaluated on the way."""
    return metrics_of(job.spec) is not None and not job.origin.is_smoke


def _children(training: str, live: Mapping[str, LiveJob]) -> Iterator[LiveJob]:
    yield from (job for job in live.values() if job.origin.trained_by == training)
