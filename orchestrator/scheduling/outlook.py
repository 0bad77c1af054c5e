"""Which of the jobs that wait can never start, and which wait for nodes to start: for all at once.

The same answers as `explain` gives for one job, without what else it says; equal jobs are looked at
once. Pure.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from operator import attrgetter

from orchestrator.scheduling.decide import asks_of
from orchestrator.scheduling.ledger import NodeLedger, QuotaLedger
from orchestrator.scheduling.promised import promised_nodes
from orchestrator.scheduling.requests import JobRequest, QueuedJob
from orchestrator.scheduling.snapshot import Snapshot
from orchestrator.scheduling.verdict import Verdict

_OF_ITS_OWN = ("job_id", "submitted_at", "priority", "max_runtime_s", "preemptible", "owner")
_SIZE = attrgetter(*(f.name for f in fields(JobRequest) if f.name not in _OF_ITS_OWN))


def outlooks(snapshot: Snapshot) -> Mapping[str, Verdict]:
    """Return, by job, `NEVER` or `WAITS_FOR_NODES`; jobs that fit the nodes there are left out."""
    cluster = _Cluster(snapshot)
    known: dict[tuple[object, ...], Verdict | None] = {}
    verdicts = {}
    for job in snapshot.queue:
        size = _size(job)
        if size not in known:
            known[size] = cluster.outlook(job)
        if (verdict := known[size]) is not None:
            verdicts[job.job_id] = verdict
    return verdicts


def _size(job: QueuedJob) -> tuple[object, ...]:
    return (*_SIZE(job), job.avoided_nodes)


class _Cluster:
    """The empty cluster: what is there, and what could be."""

    def __init__(self, snapshot: Snapshot) -> None:
        # Who is drained is most often replaced.
        there = [replace(node, is_draining=False) for node in snapshot.nodes]
        promised = promised_nodes(snapshot.node_types, snapshot.nodes)
        self.there = NodeLedger(there, snapshot.running)
        self.ever = NodeLedger([*there, *promised], snapshot.running)
        self.quotas = QuotaLedger(snapshot.quotas, snapshot.running)
        self.is_known = bool(snapshot.nodes or snapshot.node_types)
        self.may_grow = bool(snapshot.node_types)

    def outlook(self, job: QueuedJob) -> Verdict | None:
        needed, asks = job.num_workers_min, asks_of(job, self.ever)
        if self.quotas.num_ever(job.queue, asks[0]) < needed:
            return Verdict.NEVER
        if self.is_known and max(map(self.ever.num_ever, asks)) < needed:
            return Verdict.NEVER
        there = max(map(self.there.num_ever, asks_of(job, self.there)))
        return Verdict.WAITS_FOR_NODES if self.may_grow and there < needed else None
