"""The workers of a fleet as Ray actors: hired where they were placed, replaced when they die."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.fleet.actor import Hello, Identity, Orders, SampleWorker, WorkerReport
from orchestrator.fleet.work import WorkerSetup

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 30.0
_LOOK_FOR_ROOM_EVERY_S = 1.0
_LOOKS = 2
_ASK_FOR_ROOM_EVERY_S = 5.0
_WITHDRAW_AFTER_S = 60.0
_CLOSE_WITHIN_S = 5.0
_LEAVE_WITHIN_S = 60.0


@dataclass(frozen=True, kw_only=True)
class CrewPlan:
    """How many workers, where, and what each needs.

    Attributes:
        nodes: For each worker that has its place: the Ray node, or "" for any.
        max_workers: With capacity that nobody uses it grows up to these.
        cpus: CPUs of each worker.
        gpus: GPUs of each worker.
        identity: Whom they work for; None in benchmarks without a store.
        place_within_s: Without any worker for that long, the fleet gives up.
        may_grow: Whether it may take room that nobody uses.
        must_yield: Whether the workers in such room, by node, are to leave: others need it.
    """

    nodes: tuple[str, ...]
    max_workers: int
    cpus: float
    gpus: float = 0.0
    identity: Identity | None = None
    place_within_s: float = 300.0
    may_grow: Callable[[], bool] = lambda: True
    must_yield: Callable[[Mapping[str, int]], bool] = lambda surplus: False


@dataclass(kw_only=True, eq=False)
class CrewMember:
    """One worker as the driver sees it.

    Attributes:
        name: Its name in commits and in the table.
        rank: Its number within the attempt.
        slot: The place that it fills.
        hired_at: When it was asked for.
        started: Answers once its process is there, which it is only where it has its room.
        hello: What it said when it was ready; None before.
        report: What it said last; None before.
        decisions: What it has still to be told.
        drops: Shards that it has still to be told of.
        accounted_s: Of its busy seconds, those whose shards came to something.
        leave_by: When it must have saved and ended, since others need its room; None if it stays.
    """

    name: str
    rank: int
    slot: int
    actor: Any
    hired_at: float
    started: Any = None
    hello: Hello | None = None
    report: WorkerReport | None = None
    decisions: Mapping[str, Any] | None = None
    drops: list[int] = field(default_factory=list)
    accounted_s: float = 0.0
    leave_by: float | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it has built its network and can draw."""
        return self.report is not None and self.report.is_ready

    @property
    def is_leaving(self) -> bool:
        """Whether it is to save and end."""
        return self.leave_by is not None

    @property
    def num_undrawn(self) -> int:
        """Shards that it holds and has not drawn."""
        return self.report.num_undrawn if self.report else 0


class Crew:
    """Starts actors, carries calls to them, and tells which are dead."""

    def __init__(self, setup: WorkerSetup, plan: CrewPlan) -> None:
        self.members: list[CrewMember] = []
        self.last_loss = ""
        self._actor_class = ray.remote(SampleWorker)
        self._setup = setup
        self._plan = plan
        self._closing: dict[Any, tuple[Any, float]] = {}
        self._calls: dict[Any, CrewMember] = {}
        self._ranks = 0
        self._deaths = [0] * plan.max_workers
        self._free_at = [0.0] * plan.max_workers
        self._looked_at = self._asked_at = 0.0
        self._looks_with_room = 0
        self._ready_at = time.monotonic()

    @property
    def max_workers(self) -> int:
        """The most that it may have."""
        return self._plan.max_workers

    @property
    def place_within_s(self) -> float:
        """See `CrewPlan`."""
        return self._plan.place_within_s

    @property
    def unplaced_s(self) -> float:
        """Seconds since a worker was ready; 0 while one is."""
        if any(member.hello for member in self.members):
            self._ready_at = time.monotonic()
        return time.monotonic() - self._ready_at

    @property
    def num_unplaced(self) -> int:
        """How many workers that were given a place have been asked for and have no room."""
        placed = [member for member in self.members if member.slot < len(self._plan.nodes)]
        return sum(not _has_room(member) for member in placed)

    def hire(self, decisions: Mapping[str, Any] | None) -> None:
        """Ask for the workers that are missing and may come now."""
        now = time.monotonic()
        filled = {member.slot for member in self.members}
        vacant = [
            slot
            for slot in range(self._plan.max_workers)
            if slot not in filled and self._free_at[slot] <= now
        ]
        placed = [slot for slot in vacant if slot < len(self._plan.nodes)]
        for slot in placed:
            self._hire(slot, self._plan.nodes[slot], decisions)
        extra = vacant[len(placed) :]
        if extra:
            for slot in extra[: self._room_for(now)]:
                self._hire(slot, "", decisions)
        self._withdraw_unplaced(now)

    def _room_for(self, now: float) -> int:
        """Return for how many extra workers there is room that nobody uses.

        It has to be seen twice, with nobody on the way: whoever waits in the queue goes first.
        """
        if now - self._looked_at < _LOOK_FOR_ROOM_EVERY_S:
            return 0
        self._looked_at = now
        room = sum(map(self._workers_in, available_resources_per_node().values()))
        self._looks_with_room = self._looks_with_room + 1 if room else 0
        if self._looks_with_room < _LOOKS or any(member.hello is None for member in self.members):
            return 0
        return room if self._plan.may_grow() else 0

    def _workers_in(self, free: Mapping[str, float]) -> int:
        needs = {"CPU": self._plan.cpus, "GPU": self._plan.gpus}
        return min(int(free.get(name, 0.0) / need) for name, need in needs.items() if need)

    def shrink(self) -> None:
        """Have the surplus workers leave if others need their room."""
        surplus = [m for m in self.members if m.slot >= len(self._plan.nodes)]
        now = time.monotonic()
        if not surplus or now - self._asked_at < _ASK_FOR_ROOM_EVERY_S:
            return
        self._asked_at = now
        if self._plan.must_yield(Counter(m.hello.node_id for m in surplus if m.hello)):
            for member in surplus:
                self._free_at[member.slot] = now + _LONGEST_PAUSE_S
                if member.leave_by is None:
                    member.leave_by = now + _LEAVE_WITHIN_S
                if not member.is_ready:  # it holds nothing, and would first compile for minutes
                    self.release(member)

    def _hire(self, slot: int, node: str, decisions: Mapping[str, Any] | None) -> None:
        rank, self._ranks = self._ranks, self._ranks + 1
        identity = self._plan.identity
        name = f"worker-{rank}"
        if identity is not None:
            identity = replace(identity, rank=rank)
            name = f"{identity.attempt}-worker-{rank}"
        actor = self._actor_class.options(
            num_cpus=self._plan.cpus,
            num_gpus=self._plan.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=_strategy(node),
        ).remote(self._setup, name, identity)
        member = CrewMember(
            name=name,
            rank=rank,
            slot=slot,
            actor=actor,
            hired_at=time.monotonic(),
            started=actor.__ray_ready__.remote(),
        )
        self.members.append(member)
        self._calls[actor.prepare.remote(decisions)] = member

    def _withdraw_unplaced(self, now: float) -> None:
        """Give up growing where the room was taken by somebody else in between."""
        for member in list(self.members):
            is_extra = member.slot >= len(self._plan.nodes)
            is_late = now - member.hired_at > _WITHDRAW_AFTER_S
            if is_extra and is_late and not _has_room(member):
                self.release(member)
                self._free_at[member.slot] = now + _LONGEST_PAUSE_S

    def answers(
        self, timeout_s: float = 0.2
    ) -> Iterator[tuple[CrewMember, Hello | WorkerReport | None]]:
        """Yield what workers answered; None for one that is dead.

        A worker that cannot get ready, on a node where something is missing or broken, counts as
        dead as long as others can draw; and so does one that was to leave long ago.

        Raises:
            OrchestratorError: What a worker raised.
        """
        self._end_closed()
        for member in self._overdue():
            yield member, None
        if not self._calls:
            time.sleep(timeout_s)
            return
        calls = list(self._calls)
        ready, rest = ray.wait(calls, num_returns=1, timeout=timeout_s)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for call in ready:
            member = self._calls.pop(call)
            if member in self.members:
                yield member, self._answer(call, member)

    def _overdue(self) -> list[CrewMember]:
        """End the workers that others wait for and that do not leave: they hang."""
        now = time.monotonic()
        overdue = [m for m in self.members if m.leave_by is not None and now > m.leave_by]
        for member in overdue:
            self.last_loss = f"it did not leave within {_LEAVE_WITHIN_S:.0f} s"
            logger.warning("%s is lost: %s", member.name, self.last_loss)
            self.release(member)
        return overdue

    def _answer(self, call: Any, member: CrewMember) -> Hello | WorkerReport | None:
        try:
            answer: Hello | WorkerReport = ray.get(call)
        except RayError as error:
            can_others = any(other.is_ready for other in self.members if other is not member)
            if isinstance(error, RayTaskError) and (member.is_ready or not can_others):
                raise
            self.last_loss = " ".join(str(error).split())[:300]
            logger.warning("%s is lost: %s", member.name, self.last_loss)
            self._deaths[member.slot] += 1
            pause_s = min(2.0 ** (self._deaths[member.slot] - 1), _LONGEST_PAUSE_S)
            self._free_at[member.slot] = time.monotonic() + pause_s
            self.release(member)
            return None
        if isinstance(answer, Hello):
            member.hello = answer
        elif answer.events:
            self._deaths[member.slot] = 0
        return answer

    def send(self, member: CrewMember, orders: Orders) -> None:
        """Call a worker; its answer comes out of `answers`."""
        self._calls[member.actor.exchange.remote(orders)] = member

    def release(self, member: CrewMember) -> None:
        """End a worker; its place is free."""
        self.members.remove(member)
        ray.kill(member.actor)

    def retire(self, member: CrewMember) -> None:
        """End a worker that has nothing left to do, once its log is in the store."""
        self.members.remove(member)
        self._closing[member.actor.close.remote()] = (member.actor, time.monotonic())

    def _end_closed(self) -> None:
        """End the retired workers whose logs are in the store: until then they hold their room."""
        if not self._closing:
            return
        calls = list(self._closing)
        closed = ray.wait(calls, num_returns=len(calls), timeout=0)[0]
        too_late = time.monotonic() - _CLOSE_WITHIN_S
        for call in calls:
            actor, retired_at = self._closing[call]
            if call in closed or retired_at < too_late:
                ray.kill(actor)
                del self._closing[call]

    def dismiss_unready(self) -> None:
        """End the workers that cannot draw yet: they hold nothing."""
        for member in [member for member in self.members if not member.is_ready]:
            self.release(member)

    def dismiss(self) -> None:
        """End all workers."""
        for member in list(self.members):
            self.release(member)
        self._calls.clear()
        if self._closing:
            ray.wait(list(self._closing), num_returns=len(self._closing), timeout=_CLOSE_WITHIN_S)
        for actor, _ in self._closing.values():
            ray.kill(actor)
        self._closing.clear()


def _has_room(member: CrewMember) -> bool:
    return member.hello is not None or bool(ray.wait([member.started], timeout=0)[0])


def _strategy(node: str) -> Any:
    return NodeAffinitySchedulingStrategy(node, soft=True) if node else "DEFAULT"
