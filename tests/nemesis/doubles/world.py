"""A simulated life: a store, a cluster, orchestrators, drivers, users and MLflow, second by second.

The orchestrators are the product's `Controller`, `Lease`, `TrackingCarrier`; the users call the
product's `client`; the drivers are its `Attempt`. What is simulated is time, Ray, and processes.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import lru_cache
from types import SimpleNamespace
from unittest import mock

from orchestrator.client import deletion
from orchestrator.controller import adoption, lease
from orchestrator.controller.models import ModelFinder, ModelResolution
from orchestrator.errors import BadInputError
from orchestrator.jobs import inbox, index, submissions
from orchestrator.jobs.lease_view import LeaseHolder
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobState
from orchestrator.specs.group import stored_submission
from orchestrator.specs.sections import ModelRef
from tests.nemesis.doubles import jobs
from tests.nemesis.doubles.actors import Actor
from tests.nemesis.doubles.cluster import Process, SimulatedCluster, after
from tests.nemesis.doubles.driver import Driver
from tests.nemesis.doubles.leader import Orchestrator
from tests.nemesis.doubles.store import View, WatchedStore, Weather
from tests.nemesis.doubles.users import Users
from tests.nemesis.doubles.witness import Witness
from tests.support.fakes import MemoryTracking
from tests.support.models import model_of

MOST_CALM_S = 3600
AFTERWARDS_S = 75  # all that is put off is done within a minute


class InTurn:
    """An executor that does one thing after the other, so that a seed tells all that happens."""

    def __init__(self, *_: object, **__: object) -> None:
        self.map = map

    def __enter__(self) -> "InTurn":
        return self

    def __exit__(self, *_: object) -> None:
        return None


class World:
    """A life.

    Args:
        seed: Of everything that is not a fault.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.weather = Weather()
        self.server = MemoryTracking()
        self.store = WatchedStore(lambda *told: self.witness.written(*told))
        self.cluster = SimulatedCluster(self.store.now, self.draw, self._begin_driver)
        self.witness = Witness(self.cluster)
        self.users = Users(self.view("user"), self.draw, self._odd)
        self.orchestrators: list[Orchestrator] = []
        self.drivers: dict[int, Driver] = {}
        self.dead_owners: set[str] = set()
        self.starts_at: list[datetime] = [self.store.clock]
        self.furthest: Counter[str] = Counter()
        self.redone = 0
        self._depth = 0

    def draw(self, below: int) -> int:
        """Return a number from 0 to below another one."""
        return self.chance.randrange(below)

    def view(self, group: str) -> View:
        """Return the store as a new process sees it."""
        return View(self.store, self.weather, group, self.pass_by)

    def pass_by(self, seconds: int) -> None:
        """Let the others live on while a process waits in the middle of a call."""
        if self._depth:  # the whole machine sleeps
            self.store.advance(seconds)
            return
        self._depth += 1
        try:
            for _ in range(seconds):
                self.tick()
        finally:
            self._depth -= 1

    def tick(self) -> None:
        """Let a second pass."""
        self.store.advance(1)
        now = self.store.clock
        self.cluster.tick()
        self._start_orchestrators(now)
        for actor in self._actors():
            actor.turn(now)
        self._bury()
        self.witness.look(self.store)

    def _actors(self) -> list[Actor]:
        return [self.users, *self.orchestrators, *self.drivers.values()]

    def _start_orchestrators(self, now: datetime) -> None:
        """Start those that are due, and one where there is none: Ray's, or a user's next verb's."""
        if self.cluster.silent_until is not None and now < self.cluster.silent_until:
            return
        if not self.orchestrators and not self.starts_at:
            self.starts_at.append(after(now, 1 + self.draw(5)))
        for due in [at for at in self.starts_at if at <= now]:
            self.starts_at.remove(due)
            self.start_orchestrator()

    def start_orchestrator(self) -> None:
        """Start an orchestrator's process, beside what there is."""
        views = self.view("orchestrator"), self.view("tracking")
        is_elsewhere = self.draw(4) == 0
        made = Orchestrator(*views, self.cluster, self.server, self._odd, is_elsewhere=is_elsewhere)
        self.orchestrators.append(made)

    def _begin_driver(self, job_id: str, attempt: int, process: Process) -> None:
        diverges = job_id in self.users.diverging
        view = self.view("driver")
        made = Driver(view, self.cluster, process, self.draw, diverges=diverges)
        self.drivers[process.ref.pid] = made

    def _bury(self) -> None:
        for one in [one for one in self.orchestrators if not one.is_alive]:
            self.orchestrators.remove(one)
            if not one.is_elsewhere:
                self.dead_owners.add(one.owner)
        for pid, driver in list(self.drivers.items()):
            if driver.is_alive:
                continue
            del self.drivers[pid]
            driver.view.is_dead = True
        for driver in self.drivers.values():
            self._note_progress(driver)

    def _note_progress(self, driver: Driver) -> None:
        job_id = driver.process.job_id
        if driver.began_at is not None and driver.began_at >= 0:
            self.redone += max(0, self.furthest[job_id] - driver.began_at)
            driver.began_at = -1
        self.furthest[job_id] = max(self.furthest[job_id], driver.done)

    def _odd(self, error: BaseException) -> None:
        self.witness.say(f"{type(error).__name__}: {error}")

    def calm_down(self) -> None:
        """Let everything come to its end; nothing new happens."""
        self.users.has_closed = True
        self.weather.down_until.clear()
        for _ in range(MOST_CALM_S):
            if self._is_over():
                break
            self.tick()
        for _ in range(AFTERWARDS_S):
            self.tick()

    def _is_over(self) -> bool:
        if not self.users.is_idle or any(p.is_alive for p in self.cluster.processes.values()):
            return False
        return not any(True for _ in self.store.list_objects("queue/"))


@contextmanager
def simulated(world: World) -> Iterator[None]:
    """Have the product's clocks, threads and chance be those of a life."""

    def is_over(holder: LeaseHolder) -> bool:
        return holder.released or holder.owner in world.dead_owners

    def seconds() -> float:
        return world.store.clock.timestamp()

    def token_hex(size: int = 8) -> str:
        return world.chance.randbytes(size).hex()

    def find(_: ModelFinder, ref: ModelRef, now: datetime) -> ModelResolution:
        assert ref.job is not None
        state = RecordStore(world.store).read(ref.job).record.state
        if not state.has_ended:
            return ModelResolution(waits_for=f"the end of job {ref.job}", waits_for_job=ref.job)
        if state is not JobState.SUCCEEDED:
            raise BadInputError(f"model: {ref.job} has no checkpoint")
        return ModelResolution(model_of(ref.job, jobs.STEPS))

    with ExitStack() as changed:
        change = changed.enter_context
        change(mock.patch.object(lease, "_is_over", is_over))
        change(mock.patch.object(lease, "_seconds", seconds))
        change(mock.patch.object(lease, "secrets", SimpleNamespace(token_hex=token_hex)))
        change(mock.patch.object(inbox, "secrets", SimpleNamespace(token_hex=token_hex)))
        change(mock.patch.object(adoption, "time", SimpleNamespace(monotonic=seconds)))
        read = lru_cache(256)(lambda text: stored_submission(json.loads(text)))
        change(
            mock.patch.object(
                submissions, "stored_submission", lambda value: read(json.dumps(value))
            )
        )  # a fifth of all time went into reading the same specs
        for module in (adoption, index, deletion):
            change(mock.patch.object(module, "ThreadPoolExecutor", InTurn))
        change(mock.patch.object(ModelFinder, "find", find))
        yield
