"""Settles what a queued job needs before it is placed: its model, images and smoke test."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from orchestrator.artifacts.checkpoints.references import hold_model
from orchestrator.controller.adoption import LiveJob
from orchestrator.controller.image_jobs import settle_dataset, unfinished_set
from orchestrator.controller.models import ModelFinder
from orchestrator.controller.smoke_gate import read_gate, smoke_gate
from orchestrator.errors import BadInputError
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobState, Reason
from orchestrator.scheduling.nodes import NodeCapacity
from orchestrator.store.objects import ObjectStore


class Settler:
    """Finds out whether queued jobs may start, writes down what they wait for, or fails them.

    Args:
        store: The truth.
        records: Writes under the orchestrator's lease.
        live: The jobs that have not ended, by id.
    """

    def __init__(
        self, store: ObjectStore, records: RecordStore, live: Mapping[str, LiveJob]
    ) -> None:
        self._store = store
        self._records = records
        self._live = live
        self._models = ModelFinder(store)

    def settle(self, job: LiveJob, nodes: Sequence[NodeCapacity]) -> None:
        """Settle what can be settled now; `job.waits_for` then says what is missing, if anything.

        Raises:
            ConditionFailedError: Somebody else moved its record.
        """
        await_smoke = partial(self._await_smoke, nodes=nodes)
        self._find_dataset(job)
        for settle in (self._find_model, self._await_images, await_smoke):
            if job.record.state is JobState.QUEUED and job.has_dataset:
                settle(job)

    def _fail(self, job: LiveJob, reason: Reason, message: str) -> None:
        now = self._store.now()
        failed = job.record.moved_to(JobState.FAILED, at=now, reason=reason, message=message)
        job.current = self._records.move(job.current, failed)

    def _tell(self, job: LiveJob, message: str, reason: Reason | None) -> None:
        """Write down what a job waits for, where that changed."""
        if job.record.message != message:
            changed = replace(job.record, reason=reason, message=message)
            job.current = self._records.write(job.current, changed)

    def _find_dataset(self, job: LiveJob) -> None:
        """Find the set that another job prepares for this one, once, or say what it waits for."""
        asked = job.spec.dataset_input
        if job.has_dataset or asked is None or asked.job is None:
            job.has_dataset = True
            return
        if job.record.state is not JobState.QUEUED or job.waits_for_job in self._live:
            return  # it still lives: nothing to read
        try:
            waits_for = settle_dataset(
                self._store, job.record.job_id, job.spec, asked.job, job.origin.smoke_of
            )
        except BadInputError as error:
            self._fail(job, Reason.BAD_INPUT, str(error))
            return
        job.has_dataset, job.waits_for_job = waits_for is None, waits_for
        job.waits_for = f"the end of job {waits_for}" if waits_for else None
        self._tell(job, f"waits for {job.waits_for}" if waits_for else "", job.record.reason)

    def _find_model(self, job: LiveJob) -> None:
        """Resolve the checkpoint that a sample job draws from, once, or say what it waits for."""
        ref = job.spec.model_input
        if ref is None or job.record.model is not None:
            return
        if job.waits_for_job in self._live:
            return  # it still lives: nothing to read
        try:
            resolution = self._models.find(ref, self._store.now())
        except BadInputError as error:
            self._fail(job, Reason.BAD_INPUT, str(error))
            return
        model = resolution.model
        if model is not None and not hold_model(self._store, model, job.record.job_id):
            job.waits_for = "its checkpoint, which was deleted at this very moment"
            return
        job.waits_for, job.waits_for_job = resolution.waits_for, resolution.waits_for_job
        if model is not None:
            job.current = self._records.write(
                job.current, replace(job.record, model=model, reason=None, message="")
            )
        else:
            self._tell(job, f"waits for {resolution.waits_for}", Reason.WAITING_FOR_MODEL)

    def _await_images(self, job: LiveJob) -> None:
        """Hold a job back until the sample sets that it reads have been drawn."""
        if job.has_images or not job.spec.image_jobs or job.waits_for_job in self._live:
            return
        try:
            waits_for = unfinished_set(self._store, job.spec.image_jobs)
        except BadInputError as error:
            self._fail(job, Reason.BAD_INPUT, str(error))
            return
        job.has_images, job.waits_for_job = waits_for is None, waits_for
        job.waits_for = f"the end of job {waits_for}" if waits_for else None
        self._tell(job, f"waits for {job.waits_for}" if waits_for else "", job.record.reason)

    def _await_smoke(self, job: LiveJob, nodes: Sequence[NodeCapacity]) -> None:
        """Hold a job back until its smoke test has passed, or fail it with that."""
        smoke_id, record = job.origin.waits_for_smoke, job.record
        waits_for_model = job.spec.model_input is not None and record.model is None
        # Whoever asks again has mended what was wrong, and the attempt tries it first.
        is_over = job.has_passed_smoke or record.attempt or record.retried_at is not None
        if not smoke_id or is_over or waits_for_model:
            return
        live = self._live.get(smoke_id)
        wants_gpu = job.spec.resources.gpus_per_worker != 0 and any(node.gpus for node in nodes)
        if live:
            gate = smoke_gate(live.record, wants_gpu=wants_gpu)
        else:
            gate = read_gate(self._records, smoke_id, wants_gpu=wants_gpu)
        job.has_passed_smoke = gate.is_open
        job.waits_for = None if gate.is_open else f"its smoke test {smoke_id}"
        if gate.reason is not None:
            self._fail(job, gate.reason, gate.message)
        else:
            self._tell(job, gate.message, None if gate.is_open else Reason.WAITING_FOR_SMOKE)
