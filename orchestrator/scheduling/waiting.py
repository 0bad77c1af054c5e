"""The cluster as one waiting job sees it: what is free, who holds it, what keeps the job back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from orchestrator.counts import counted
from orchestrator.scheduling.decide import asks_of, decide, kept_for
from orchestrator.scheduling.forecast import estimated_start
from orchestrator.scheduling.ledger import Ask, NodeLedger, QuotaLedger
from orchestrator.scheduling.matching import why_unsuited
from orchestrator.scheduling.nodes import NodeCapacity
from orchestrator.scheduling.placement import UNITS
from orchestrator.scheduling.promised import promised_nodes
from orchestrator.scheduling.requests import QueuedJob, RunningJob
from orchestrator.scheduling.snapshot import Action, Preempt, Snapshot, Start
from orchestrator.scheduling.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class NodeRoom:
    """What is free on a node.

    Attributes:
        node_id: Its Ray id.
        free_cpus: CPUs.
        free_gpus: GPUs.
        num_workers: The job's workers that fit on it now.
        accelerator: Type of its GPUs; "" for none or unknown.
        labels: Its labels.
        unsuited: Why the job may not use it, whatever is free; "" if it may.
    """

    node_id: str
    free_cpus: float
    free_gpus: float
    num_workers: int
    accelerator: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    unsuited: str = ""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A job that holds what the waiting one asks for.

    Attributes:
        job_id: Its id.
        queue: Its queue.
        priority: Its priority.
        cpus: CPUs that it holds.
        gpus: GPUs that it holds.
        node_ids: Where.
        stopping: Whether it is about to free them.
        expected_end_at: When it ends at its pace, else at the latest; None if nobody knows.
    """

    job_id: str
    queue: str
    priority: int
    cpus: float
    gpus: float
    node_ids: tuple[str, ...]
    stopping: bool
    expected_end_at: float | None


class NextTurn:
    """What is decided at the next turn, for whoever asks first and for all others."""

    def __init__(self, snapshot: Snapshot, now: float) -> None:
        self._snapshot = snapshot
        self._now = now

    @cached_property
    def actions(self) -> Sequence[Action]:
        """What is asked for."""
        return decide(self._snapshot, self._now)

    @cached_property
    def decided(self) -> Snapshot:
        """The snapshot once that has been asked for."""
        return self._snapshot.after(self.actions, self._now)


class WaitingJob:
    """The cluster as one waiting job sees it."""

    def __init__(
        self, snapshot: Snapshot, job: QueuedJob, now: float, plan: NextTurn | None = None
    ) -> None:
        self.snapshot = snapshot
        self.job = job
        self.now = now
        self.plan = plan or NextTurn(snapshot, now)
        self.nodes = NodeLedger(snapshot.nodes, snapshot.running)
        self.quotas = QuotaLedger(snapshot.quotas, snapshot.running)
        self.ask = self._best_of(asks_of(job, self.nodes))

    def _best_of(self, asks: list[Ask]) -> Ask:
        """Return of the types of GPU that it may use the one of which it could have the most."""
        return max(asks, key=lambda ask: (self.nodes.num_now(ask), self.nodes.num_ever(ask)))

    def verdict(self) -> tuple[Verdict, str]:
        """Return what becomes of the job, and why."""
        never = self._why_never()
        if never is not None:
            return Verdict.NEVER, never
        not_yet = self._why_not_yet()
        if not_yet is not None:
            return Verdict.NOT_NOW, not_yet
        if starts_nodes := self._waits_for_nodes():
            return Verdict.WAITS_FOR_NODES, starts_nodes
        actions = self.plan.actions
        if any(isinstance(a, Start) and a.job_id == self.job.job_id for a in actions):
            return Verdict.STARTS_NEXT, "it fits and starts at the next turn"
        victims = [
            a.job_id for a in actions if isinstance(a, Preempt) and a.for_job == self.job.job_id
        ]
        if victims:
            return (
                Verdict.STARTS_NEXT,
                f"it takes the place of {_named(victims)}, of lower priority",
            )
        return self._why_not_now(self.plan.decided)

    def holders(self) -> tuple[Holder, ...]:
        """Return who holds what it waits for, the most first."""
        asks_for_gpus = self.job.gpus_per_worker > 0
        holding = [job for job in self.snapshot.running if job.gpus > 0 or not asks_for_gpus]
        return tuple(
            _holder(job)
            for job in sorted(
                holding,
                key=lambda job: (-job.gpus, -job.num_workers * job.cpus_per_worker, job.job_id),
            )
        )

    def free(self) -> tuple[NodeRoom, ...]:
        """Return what is free on each node, and how many of its workers that would take."""
        slots = self.nodes.slots(self.nodes.free_now(self.ask), self.ask).tolist()
        rooms = [
            NodeRoom(
                node_id=node.node_id,
                free_cpus=node.free_cpus,
                free_gpus=node.free_gpus,
                num_workers=0 if node.is_draining else slots[self.nodes.index[node.node_id]],
                accelerator=node.accelerator,
                labels=node.labels,
                unsuited=why_unsuited(self.job, node),
            )
            for node in self.snapshot.nodes
        ]
        return tuple(sorted(rooms, key=lambda room: (-room.num_workers, room.node_id)))

    def lifted(self) -> frozenset[str]:
        """Return the nodes that it would avoid if it could."""
        return (self.job.avoided_nodes - self.ask.avoided) & self.nodes.index.keys()

    def _why_never(self) -> str | None:
        """Say why the job would not start on the empty cluster."""
        needed = self.job.num_workers_min
        if self.quotas.num_ever(self.job.queue, self.ask) < needed:
            quota = self.snapshot.quotas[self.job.queue]
            gpus = needed * self.job.gpus_per_worker
            return (
                f"it needs {counted(gpus, 'GPU')} and queue {self.job.queue} may hold {quota:g}: "
                "ask for less, or raise it with "
                f"`ddpmctl queue set {self.job.queue} --gpus {gpus:g}`"
            )
        fitting = self._fitting([*self._whole(), *self._promised()])
        if (self.snapshot.nodes or self.snapshot.node_types) and fitting < needed:
            return (
                f"even with nothing else running the cluster has room for {fitting} of its "
                f"{counted(needed, 'worker')} ({self._lacking()}): ask for less, or add nodes"
            )
        return None

    def _whole(self) -> list[NodeCapacity]:
        """Return the nodes as if none left: who is drained is most often replaced."""
        return [replace(node, is_draining=False) for node in self.snapshot.nodes]

    def _promised(self) -> list[NodeCapacity]:
        return promised_nodes(self.snapshot.node_types, self.snapshot.nodes)

    def _fitting(self, on: list[NodeCapacity]) -> int:
        """Return how many of its workers fit on empty nodes."""
        nodes = NodeLedger(on, self.snapshot.running)
        return max(map(nodes.num_ever, asks_of(self.job, nodes)))

    def _waits_for_nodes(self) -> str | None:
        """Say which nodes the autoscaler may start, if those that are there are too few."""
        needed = self.job.num_workers_min
        if not self.snapshot.node_types or (fitting := self._fitting(self._whole())) >= needed:
            return None
        types = [kind.name for kind in self.snapshot.node_types]
        return (
            f"the nodes that are there have room for {fitting} of its {needed} workers; the "
            f"autoscaler may start others ({', '.join(types)}) and is asked for them in turn"
        )

    def _lacking(self) -> str:
        """Say what keeps the largest node, or all of them, from being enough."""
        reasons = [why_unsuited(self.job, node) for node in self.snapshot.nodes]
        if not reasons:
            return "it has no node, and may start too few"
        if all(reasons):
            return f"of the first of {counted(len(reasons), 'node')}, {reasons[0]}"
        suited = [n for n, why in zip(self.snapshot.nodes, reasons, strict=True) if not why]
        largest = max(suited, key=lambda node: (node.gpus, node.cpus, node.memory_gb))
        memory = f", {largest.memory_gb:g} GB" if self.job.memory_gb_per_worker else ""
        kind = "node that suits it" if any(reasons) else "node"
        gpus, cpus = counted(largest.gpus, "GPU"), counted(largest.cpus, "CPU")
        return f"the largest {kind} has {gpus}{memory} and {cpus}"

    def _why_not_yet(self) -> str | None:
        """Say what keeps the job back that is not a matter of capacity."""
        if self.job.waits_for is not None:
            return f"it waits for {self.job.waits_for}"
        if self.job.not_before > self.now:
            return f"it backs off for another {self.job.not_before - self.now:.0f} s"
        if not self.snapshot.nodes and not self.snapshot.node_types:
            return "the cluster has no node at the moment"
        return None

    def _why_not_now(self, decided: Snapshot) -> tuple[Verdict, str]:
        """Say what the job lacks, once everything is decided."""
        stopping = [job.job_id for job in self.snapshot.running if job.stopping]
        if stopping and estimated_start(self.snapshot, self.job.job_id, self.now) == self.now:
            return Verdict.STARTS_NEXT, f"it starts once {_named(stopping)} has stopped"
        view = WaitingJob(decided, self.job, self.now)
        needed = self.job.num_workers_min
        allowed = view.quotas.num_now(self.job.queue, self.ask)
        if allowed < needed:
            return Verdict.NOT_NOW, self._quota_is_full(decided)
        fitting = view.nodes.num_now(self.ask)
        if fitting < needed:
            leaving = sum(node.is_draining for node in decided.nodes)
            drained = f" (being drained: {counted(leaving, 'node')})" if leaving else ""
            room = f"there is room for {fitting} of its {counted(needed, 'worker')} now{drained}"
            return Verdict.NOT_NOW, room
        for reservation in kept_for(decided, self.job.queue, self.now):
            if reservation.job_id != self.job.job_id:
                return Verdict.NOT_NOW, (
                    f"it would fit, but {reservation.job_id} is first in line and needs the room; "
                    "a max_runtime_s that ends before that, or a lower priority, lets it pass"
                )
        return Verdict.NOT_NOW, "it would fit, but what is free is held for jobs ahead of it"

    def _quota_is_full(self, decided: Snapshot) -> str:
        used = sum(job.gpus for job in decided.running if job.queue == self.job.queue)
        quota = self.snapshot.quotas[self.job.queue]
        return (
            f"jobs of queue {self.job.queue} hold {used:g} of its {counted(quota, 'GPU')} and it "
            f"needs {self.job.num_workers_min * self.ask.worker[1] / UNITS:g}"
        )


def _holder(job: RunningJob) -> Holder:
    return Holder(
        job_id=job.job_id,
        queue=job.queue,
        priority=job.priority,
        cpus=job.num_workers * job.cpus_per_worker,
        gpus=job.gpus,
        node_ids=tuple(sorted(job.placement)),
        stopping=job.stopping,
        expected_end_at=(job.latest_end_at if job.expected_end_at is None else job.expected_end_at),
    )


def _named(job_ids: Iterable[str]) -> str:
    return ", ".join(sorted(job_ids))
