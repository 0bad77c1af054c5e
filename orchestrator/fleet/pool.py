"""The workers of a fleet as Ray actors: started where they were placed, replaced when they die."""

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.ray_cluster import GB
from orchestrator.counts import counted
from orchestrator.fleet.actor import Hello, Orders, WorkerActor, WorkerReport
from orchestrator.fleet.drains import Drains
from orchestrator.fleet.free_room import FreeRoom
from orchestrator.fleet.plan import PoolPlan
from orchestrator.fleet.work import WorkerSetup
from orchestrator.fleet.workers import PoolWorker
from orchestrator.jobs.decisions import Decisions
from orchestrator.lifecycle.state import Lending

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 30.0
_WITHDRAW_AFTER_S = 60.0
_CLOSE_WITHIN_S = 5.0
_LEAVE_WITHIN_S = 60.0


class WorkerPool:
    """Starts actors, carries calls to them, and says which are dead."""

    def __init__(self, setup: WorkerSetup, plan: PoolPlan) -> None:
        self.workers: list[PoolWorker] = []
        self.last_loss = ""
        self._actor_class = ray.remote(WorkerActor)
        self._setup = setup
        self._plan = plan
        self._closing: dict[Any, tuple[Any, float]] = {}
        self._calls: dict[Any, PoolWorker] = {}
        self._ranks = 0
        self._deaths = [0] * plan.max_workers
        self._free_at = [0.0] * plan.max_workers
        self._drains = Drains()
        self._room = FreeRoom(plan)
        self._ready_at = time.monotonic()

    @property
    def max_workers(self) -> int:
        """The most that it may have."""
        return self._plan.max_workers

    @property
    def place_within_s(self) -> float:
        """See `PoolPlan`."""
        return self._plan.place_within_s

    @property
    def unplaced_s(self) -> float:
        """Seconds since a worker was ready; 0 while one is."""
        if any(worker.hello for worker in self.workers):
            self._ready_at = time.monotonic()
        return time.monotonic() - self._ready_at

    @property
    def num_unplaced(self) -> int:
        """How many workers that were given a place have been asked for and have no room."""
        placed = [worker for worker in self.workers if not self._is_extra(worker)]
        return sum(not _has_room(worker) for worker in placed)

    def start_missing(self, decisions: Decisions | None) -> None:
        """Ask for the workers that are missing and may come now."""
        now = time.monotonic()
        filled = {worker.slot for worker in self.workers}
        vacant = [
            slot
            for slot in range(self._plan.max_workers)
            if slot not in filled and self._free_at[slot] <= now
        ]
        placed = [slot for slot in vacant if self._has_place(slot)]
        for slot in placed:
            self._start(slot, self._plan.nodes[slot], decisions)
        extra = [slot for slot in vacant if not self._has_place(slot)]
        if extra:
            for slot in extra[: self._room_for_more(now)]:
                self._start(slot, "", decisions, is_extra=True)
        self._withdraw_unplaced(now)

    def _has_place(self, slot: int) -> bool:
        """Tell whether a slot's worker was given a node, and that node stays."""
        return slot < len(self._plan.nodes) and self._plan.nodes[slot] not in self._drains.nodes

    def _is_extra(self, worker: PoolWorker) -> bool:
        return worker.is_extra or worker.slot >= len(self._plan.nodes)

    def _room_for_more(self, now: float) -> int:
        is_any_on_its_way = any(worker.hello is None for worker in self.workers)
        return self._room.for_more(now, self._drains.nodes, is_any_on_its_way=is_any_on_its_way)

    def shrink(self) -> None:
        """Have workers leave: on nodes that are about to go, and in room that others need."""
        now = time.monotonic()
        self._leave_draining(now)
        surplus = [w for w in self.workers if self._is_extra(w)]
        if not surplus or self._plan.lending() is not Lending.BACK:
            return
        for worker in surplus:
            self._free_at[worker.slot] = now + _LONGEST_PAUSE_S
            if worker.leave_by is None:
                worker.leave_by = now + _LEAVE_WITHIN_S
            if not worker.is_ready:  # it holds nothing, and would first compile for minutes
                self.kill(worker)

    def _leave_draining(self, now: float) -> None:
        """Have the workers on nodes that are being drained save what they hold, and end."""
        for node_id in self._drains.look(now):
            there = [w for w in self.workers if w.hello and w.hello.node_id == node_id]
            if there:
                self._plan.tell(
                    f"node {node_id[:12]} is being drained: "
                    f"{counted(len(there), 'worker')} to save and leave"
                )
        for worker in list(self.workers):
            is_there = worker.hello is not None and worker.hello.node_id in self._drains.nodes
            if is_there and worker.leave_by is None:
                left_s = self._drains.nodes[worker.hello.node_id] if worker.hello else None
                worker.leave_by = now + min(left_s or _LEAVE_WITHIN_S, _LEAVE_WITHIN_S)
                if not worker.is_ready:  # it holds nothing
                    self.kill(worker)

    def _start(
        self,
        slot: int,
        node: str,
        decisions: Decisions | None,
        *,
        is_extra: bool = False,
    ) -> None:
        rank, self._ranks = self._ranks, self._ranks + 1
        identity = self._plan.identity
        name = f"worker-{rank}"
        if identity is not None:
            identity = replace(identity, rank=rank)
            name = f"{identity.attempt}-worker-{rank}"
        actor = self._actor_class.options(
            num_cpus=self._plan.cpus,
            num_gpus=self._plan.gpus,
            memory=self._plan.memory_gb * GB or None,
            label_selector=dict(self._plan.labels) or None,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=_strategy(node),
        ).remote(self._setup, name, identity)
        worker = PoolWorker(
            name=name,
            rank=rank,
            slot=slot,
            actor=actor,
            asked_at=time.monotonic(),
            started=actor.__ray_ready__.remote(),
            is_extra=is_extra,
        )
        self.workers.append(worker)
        self._calls[actor.prepare.remote(decisions)] = worker

    def _withdraw_unplaced(self, now: float) -> None:
        """Give up growing where the room was taken by somebody else in between."""
        for worker in list(self.workers):
            is_extra = self._is_extra(worker)
            is_late = now - worker.asked_at > _WITHDRAW_AFTER_S
            if is_extra and is_late and not _has_room(worker):
                self.kill(worker)
                self._free_at[worker.slot] = now + _LONGEST_PAUSE_S

    def answers(
        self, timeout_s: float = 0.2
    ) -> Iterator[tuple[PoolWorker, Hello | WorkerReport | None]]:
        """Yield what workers answered; None for one that is dead.

        A worker that cannot get ready, on a node where something is missing or broken, counts as
        dead as long as others can draw; and so does one that was to leave long ago.

        Raises:
            OrchestratorError: What a worker raised.
        """
        self._end_closed()
        for worker in self._overdue():
            yield worker, None
        if not self._calls:
            time.sleep(timeout_s)
            return
        calls = list(self._calls)
        ready, rest = ray.wait(calls, num_returns=1, timeout=timeout_s)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for call in ready:
            worker = self._calls.pop(call)
            if worker in self.workers:
                yield worker, self._answer(call, worker)

    def _overdue(self) -> list[PoolWorker]:
        """End the workers that others wait for and that do not leave: they hang."""
        now = time.monotonic()
        overdue = [w for w in self.workers if w.leave_by is not None and now > w.leave_by]
        for worker in overdue:
            self.last_loss = f"it did not leave within {_LEAVE_WITHIN_S:.0f} s"
            logger.warning("%s is lost: %s", worker.name, self.last_loss)
            self.kill(worker)
        return overdue

    def _answer(self, call: Any, worker: PoolWorker) -> Hello | WorkerReport | None:
        try:
            answer: Hello | WorkerReport = ray.get(call)
        except RayError as error:
            can_others = any(other.is_ready for other in self.workers if other is not worker)
            if isinstance(error, RayTaskError) and (worker.is_ready or not can_others):
                raise
            self.last_loss = " ".join(str(error).split())[:300]
            logger.warning("%s is lost: %s", worker.name, self.last_loss)
            self._deaths[worker.slot] += 1
            pause_s = min(2.0 ** (self._deaths[worker.slot] - 1), _LONGEST_PAUSE_S)
            self._free_at[worker.slot] = time.monotonic() + pause_s
            self.kill(worker)
            return None
        if isinstance(answer, Hello):
            worker.hello = answer
        elif answer.events:
            self._deaths[worker.slot] = 0
        return answer

    def send(self, worker: PoolWorker, orders: Orders) -> None:
        """Call a worker; its answer comes out of `answers`."""
        self._calls[worker.actor.exchange.remote(orders)] = worker

    def kill(self, worker: PoolWorker) -> None:
        """End a worker; its place is free."""
        self.workers.remove(worker)
        ray.kill(worker.actor)

    def end(self, worker: PoolWorker) -> None:
        """End a worker that has nothing left to do, once its log is in the store."""
        self.workers.remove(worker)
        self._closing[worker.actor.close.remote()] = (worker.actor, time.monotonic())

    def _end_closed(self) -> None:
        """End the retired workers whose logs are in the store: until then they hold their room."""
        if not self._closing:
            return
        calls = list(self._closing)
        closed = ray.wait(calls, num_returns=len(calls), timeout=0)[0]
        too_late = time.monotonic() - _CLOSE_WITHIN_S
        for call in calls:
            actor, ended_at = self._closing[call]
            if call in closed or ended_at < too_late:
                ray.kill(actor)
                del self._closing[call]

    def end_unready(self) -> None:
        """End the workers that cannot draw yet: they hold nothing."""
        for worker in [worker for worker in self.workers if not worker.is_ready]:
            self.kill(worker)

    def end_all(self) -> None:
        """End all workers."""
        for worker in list(self.workers):
            self.kill(worker)
        self._calls.clear()
        if self._closing:
            ray.wait(list(self._closing), num_returns=len(self._closing), timeout=_CLOSE_WITHIN_S)
        for actor, _ in self._closing.values():
            ray.kill(actor)
        self._closing.clear()


def _has_room(worker: PoolWorker) -> bool:
    return worker.hello is not None or bool(ray.wait([worker.started], timeout=0)[0])


def _strategy(node: str) -> Any:
    return NodeAffinitySchedulingStrategy(node, soft=True) if node else "DEFAULT"
