"""A Ray that starts drivers late, forgets, lies, loses nodes, and does not answer for a while."""

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.cluster.process_search import ProcessRef, Sighting
from orchestrator.errors import RayUnavailableError
from orchestrator.lifecycle.steps import DriverStatus
from orchestrator.scheduling.demand import Bundle
from orchestrator.scheduling.nodes import NodeCapacity, NodeType

CPUS = 4.0
NODES_NOTICE_WITHIN_S = 60  # a node that does not reach its head ends itself


@dataclass
class Process:
    """A process of an attempt.

    Attributes:
        ref: As it is registered.
        job_id: Its job.
        attempt: Its attempt.
        is_alive: Whether it runs.
        works: Whether it has begun to work; until then it may find that nobody wants it.
        ends_at: When it ends by itself, since its driver has.
    """

    ref: ProcessRef
    job_id: str
    attempt: int
    is_alive: bool = True
    works: bool = False
    ends_at: datetime | None = None


@dataclass
class RayJob:
    """A driver as Ray knows it.

    Attributes:
        starts_at: When Ray starts it.
        status: What Ray says of it.
        seen_at: When Ray notices that it has ended.
        ended: What it says then.
        driver: The process; None before it starts.
    """

    starts_at: datetime
    status: DriverStatus = DriverStatus.PENDING
    seen_at: datetime | None = None
    ended: DriverStatus = DriverStatus.FAILED
    driver: Process | None = None


class SimulatedCluster:
    """A `Cluster` of two nodes and more, in which processes are entries of a table.

    Args:
        now: The time.
        draw: A number below another one, by chance.
        start: Called to have a driver's life begin, with job, attempt and process.
    """

    def __init__(
        self,
        now: Callable[[], datetime],
        draw: Callable[[int], int],
        start: Callable[[str, int, Process], None],
    ) -> None:
        self._now, self._draw, self._start = now, draw, start
        self._pids, self._names = itertools.count(100), itertools.count(1)
        self.jobs: dict[str, RayJob] = {}
        self.processes: dict[int, Process] = {}
        self.node_ids: list[str] = []
        self.silent_until: datetime | None = None
        self.loses_answers = 0
        self.unknown: dict[str, datetime] = {}
        self.forgotten: set[str] = set()
        self.lies: dict[str, datetime] = {}
        self.joins_at: list[datetime] = []
        for _ in range(2):
            self.join()

    def join(self) -> None:
        """Have another node join."""
        self.node_ids.append(f"n{next(self._names)}")

    def nodes(self) -> list[NodeCapacity]:
        """Return the nodes, all free: the loop takes off what is its own."""
        self._check()
        return [
            NodeCapacity(node_id=node, cpus=CPUS, gpus=0.0, free_cpus=CPUS, free_gpus=0.0)
            for node in self.node_ids
        ]

    def notice_s(self, nodes: Collection[str]) -> float | None:
        """Return nothing: no node is drained."""
        return None

    def node_types(self) -> list[NodeType]:
        """Return nothing: there is no autoscaler."""
        return []

    def wish(self, store_uri: str, bundles: Sequence[Bundle]) -> None:
        """Hear nothing."""

    def start(self, submission_id: str, entrypoint: str, metadata: Mapping[str, str]) -> None:
        """Take a driver; the same one again changes nothing."""
        self._check()
        wait_s = self._draw(4) if self._draw(20) else 60 + self._draw(300)
        self.jobs.setdefault(submission_id, RayJob(after(self._now(), wait_s)))
        if self.loses_answers:
            self.loses_answers -= 1
            raise RayUnavailableError("the answer is lost")

    def status(self, submission_id: str) -> DriverStatus:
        """Return what Ray says of a driver."""
        self._check()
        if submission_id not in self.jobs:
            return DriverStatus.ABSENT
        if self._now() < self.lies.get(submission_id, self._now()):
            return DriverStatus.RUNNING
        return self.jobs[submission_id].status

    def message(self, submission_id: str) -> str:
        """Return nothing."""
        self._check()
        return ""

    def stop(self, submission_id: str) -> None:
        """End a driver, if Ray knows it."""
        self._check()
        job = self.jobs.get(submission_id)
        if job is None or job.status.has_ended or job.seen_at is not None:
            return
        if job.driver is None:
            job.status = DriverStatus.STOPPED
        elif job.driver.is_alive:
            self.end(job.driver, DriverStatus.STOPPED)

    def alive(self, processes: Iterable[ProcessRef]) -> Sighting:
        """Return the processes that run, and those of which nobody can say."""
        refs = list(processes)
        there = [ref for ref in refs if ref.node_id not in self.forgotten]
        return Sighting(
            running=[
                ref
                for ref in there
                if self.processes[ref.pid].is_alive or self._is_unknown(ref.node_id)
            ],
            unknown=[ref for ref in refs if ref.node_id in self.forgotten],
        )

    def kill(self, processes: Iterable[ProcessRef]) -> None:
        """End processes whose node answers."""
        for ref in processes:
            if not self._is_unknown(ref.node_id) and ref.node_id not in self.forgotten:
                self.end(self.processes[ref.pid])

    def _is_unknown(self, node_id: str) -> bool:
        """Tell whether a node that is there can't be asked now."""
        now = self._now()
        return node_id in self.node_ids and now < self.unknown.get(node_id, now)

    def process(self, job_id: str, attempt: int, role: str, node_id: str) -> Process:
        """Return a new process."""
        pid = next(self._pids)
        ref = ProcessRef(role, pid, float(pid), f"boot-{node_id}", node_id, node_id)
        self.processes[pid] = process = Process(ref, job_id, attempt)
        return process

    def end(self, process: Process, said: DriverStatus = DriverStatus.FAILED) -> None:
        """End a process; a driver takes its workers with it, a little later or not at all.

        Args:
            process: The process.
            said: What Ray will say of it, if it is a driver.
        """
        if not process.is_alive:
            return
        process.is_alive, now = False, self._now()
        if process.ref.role != "driver":
            return
        job = self.jobs.get(f"{process.job_id}.{process.attempt}")
        if job is not None:
            job.seen_at, job.ended = after(now, self._draw(3)), said
        is_left = self._draw(10) == 0
        for worker in self.processes_of(process.job_id, process.attempt):
            worker.ends_at = None if is_left else after(now, 1 + self._draw(3))

    def processes_of(self, job_id: str, attempt: int | None = None) -> list[Process]:
        """Return the living processes of a job, or of one attempt of it."""
        return [
            process
            for process in self.processes.values()
            if process.is_alive and process.job_id == job_id and attempt in (None, process.attempt)
        ]

    def lose_node(self, node_id: str) -> None:
        """Take a node away, with all that runs on it; another one joins later."""
        self.node_ids.remove(node_id)
        self.joins_at.append(after(self._now(), 5 + self._draw(60)))
        for process in list(self.processes.values()):
            if process.ref.node_id == node_id:
                self.end(process)

    def lose_head(self, silent_s: int, *, nodes_live_on: bool) -> None:
        """End all of Ray, which knows nothing of before when it is back.

        Args:
            silent_s: Until when.
            nodes_live_on: Its nodes are other machines: what runs there goes on until they notice,
                and the Ray that comes knows nothing of them.
        """
        now = self._now()
        if nodes_live_on:
            self.forgotten.update(self.node_ids)
        for process in list(self.processes.values()):
            if not nodes_live_on:
                self.end(process)
                process.ends_at = None
            elif process.is_alive and process.ends_at is None:
                process.ends_at = after(now, 1 + self._draw(NODES_NOTICE_WITHIN_S))
        self.jobs.clear()
        self.lies.clear()
        self.node_ids.clear()
        for _ in range(2):
            self.join()
        self.silent_until = after(now, silent_s)

    def tick(self) -> None:
        """Start and end what is due."""
        now = self._now()
        for process in [p for p in self.processes.values() if p.is_alive and p.ends_at]:
            if process.ends_at is not None and now >= process.ends_at:
                self.end(process)
        while self.joins_at and now >= self.joins_at[0]:
            self.joins_at.pop(0)
            self.join()
        for submission_id, job in list(self.jobs.items()):
            if job.seen_at is not None and now >= job.seen_at:
                job.status, job.seen_at = job.ended, None
            elif job.status is DriverStatus.PENDING and now >= job.starts_at and self.node_ids:
                job_id, _, number = submission_id.rpartition(".")
                job.status = DriverStatus.RUNNING
                node_id = self.node_ids[self._draw(len(self.node_ids))]
                job.driver = self.process(job_id, int(number), "driver", node_id)
                self._start(job_id, int(number), job.driver)

    def _check(self) -> None:
        if self.silent_until is not None and self._now() < self.silent_until:
            raise RayUnavailableError("the simulated cluster does not answer")


def after(now: datetime, number: float) -> datetime:
    """Return the time some seconds later."""
    return datetime.fromtimestamp(now.timestamp() + number, now.tzinfo)
