"""One job's trouble ends with its turn, in every round, and is told."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from orchestrator.cli.listing import job_table
from orchestrator.client.deletion import delete_job, find_deletable
from orchestrator.client.describe import describe_job
from orchestrator.client.doctor.background import diagnose_background
from orchestrator.client.garbage import collect_garbage
from orchestrator.client.status import job_status, list_jobs
from orchestrator.client.submit import submit_job
from orchestrator.controller.notifications import notify_all
from orchestrator.controller.rounds import ROUNDS
from orchestrator.errors import (
    LeaseLostError,
    OrchestratorError,
    RayUnavailableError,
    StoreError,
    StoreUnavailableError,
    TrackingError,
)
from orchestrator.jobs.inbox import Request, Verb, post_request
from orchestrator.jobs.marks import Mark
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.troubles import TROUBLE, Trouble, Troubles, read_troubles
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobState
from orchestrator.lifecycle.steps import DriverStatus
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectInfo, StoredObject
from orchestrator.tracking.carrier import TrackingCarrier
from orchestrator.tracking.loop import carry_all, tracking_troubles
from tests.support.cluster import FakeCluster
from tests.support.errors import example_of, our_error_classes
from tests.support.fakes import MemoryStore, MemoryTracking
from tests.support.world import World, train_job

BAD, GOOD = "bad", "good"
ERRORS = [
    *(example_of(cls) for cls in our_error_classes() if not issubclass(cls, LeaseLostError)),
    *(KeyError("kind"), ValueError("no JSON"), OSError(5, "I/O error"), RuntimeError("?")),
]


class CursedStore(MemoryStore):
    """A store that fails for all that belongs to one job, and for nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.curse: Exception | None = None

    def _look(self, key: str) -> None:
        if self.curse is None or BAD not in key or key.startswith(keys.TROUBLES):
            return
        if key.startswith(f"{keys.JOBS}{BAD}/") or isinstance(self.curse, StoreError):
            raise self.curse.with_traceback(None)  # of marks and requests, only what a store says

    def get(self, key: str) -> StoredObject:
        """Return an object, or fail."""
        self._look(key)
        return super().get(key)

    def put(self, key: str, body: bytes, **condition: Any) -> str:
        """Write an object, or fail."""
        self._look(key)
        return super().put(key, body, **condition)

    def delete(self, key: str) -> None:
        """Remove an object, or fail."""
        self._look(key)
        super().delete(key)

    def exists(self, key: str) -> bool:
        """Look, or fail."""
        self._look(key)
        return super().exists(key)

    def list_objects(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """List, or fail."""
        self._look(prefix)
        return super().list_objects(prefix, after)


class CursedCluster(FakeCluster):
    """A cluster that fails for the drivers of one job."""

    curse: Exception | None = None

    def _look(self, submission_id: str) -> None:
        if self.curse is not None and BAD in submission_id:
            raise self.curse.with_traceback(None)

    def start(self, submission_id: str, entrypoint: str, metadata: Mapping[str, str]) -> None:
        """Start a driver, or fail."""
        self._look(submission_id)
        super().start(submission_id, entrypoint, metadata)

    def status(self, submission_id: str) -> DriverStatus:
        """Look at a driver, or fail."""
        self._look(submission_id)
        return super().status(submission_id)

    def stop(self, submission_id: str) -> None:
        """Stop a driver, or fail."""
        self._look(submission_id)
        super().stop(submission_id)


class CursedWorld(World):
    """A world with two jobs of which one is cursed."""

    def __init__(self) -> None:
        super().__init__()
        self.store: CursedStore = CursedStore()
        self.cluster: CursedCluster = CursedCluster()
        self.records = RecordStore(self.store)
        self.controller = self.new_controller()
        self.cluster.node_ids = ["n1", "n2"]
        for job_id in (BAD, GOOD):
            submit_job(self.store, train_job(), job_id)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_requests_of_all_others_are_served_whatever_one_job_meets(error: Exception) -> None:
    """Before adoption, and while it runs: all others waited behind one job."""
    for num_steps, is_ray in ((0, False), (1, False), (3, False), (0, True), (3, True)):
        world = CursedWorld()
        world.step(num_steps)
        for job_id in (BAD, GOOD):
            request(world.store, job_id, Verb.CANCEL)
        cursed = world.cluster if is_ray else world.store
        cursed.curse = error
        world.step(2)
        assert world.state(GOOD) in ("STOPPING", "CANCELLED"), (num_steps, is_ray)


def request(store: MemoryStore, job_id: str, verb: Verb) -> None:
    """Ask for something, as a verb of the command line does."""
    attempt = RecordStore(store).read(job_id).record.attempt
    post_request(store, Request(job_id=job_id, verb=verb, attempt=attempt, at=store.now()))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_loop_finishes_all_others_whatever_one_job_meets(error: Exception) -> None:
    """Before adoption, and while it runs: all others waited behind one job."""
    for num_steps, is_ray in ((0, False), (1, False), (3, False), (0, True), (3, True)):
        world = CursedWorld()
        world.step(num_steps)
        cursed = world.cluster if is_ray else world.store
        cursed.curse = error
        world.step(2)
        assert world.state(GOOD) in ("STARTING", "RUNNING")
        world.begin(GOOD)
        world.step(2)
        world.end(GOOD, Outcome(succeeded=True, progress=10))
        world.step(3)
        assert world.state(GOOD) == "SUCCEEDED", (num_steps, is_ray)
        assert {one.job_id for one in read_troubles(world.store)} <= {BAD}
        cursed.curse = None
        told = [event.message for event in world.records.events(BAD)]
        waits = [message for message in told if " waits: " in message]
        assert len(waits) == len(set(waits)), waits


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_other_rounds_serve_all_others_whatever_one_job_meets(error: Exception) -> None:
    """Tracking, notifications and garbage stopped at the first job that they could not serve."""
    world = CursedWorld()
    for job_id in (BAD, GOOD):
        current = world.records.read(job_id)
        ended = current.record.moved_to(JobState.CANCELLED, at=world.store.now())
        world.records.move(current, ended)
        world.store.put(Mark.NOTIFY.key(job_id), b"{}")
    world.store.curse = error
    carrier = TrackingCarrier(world.store, MemoryTracking())
    carry_all(world.store, carrier, tracking_troubles(world.store, carrier))
    assert not world.store.exists(Mark.TRACKING.key(GOOD))
    notify_all(world.store)
    assert not world.store.exists(Mark.NOTIFY.key(GOOD))
    orphan = world.store.put(f"{keys.JOBS}{GOOD}/attempts/0001/data/x", b"1")
    assert orphan
    found = collect_garbage(world.store)
    assert set(found.skipped) <= {BAD}
    if isinstance(error, OrchestratorError):  # what a store, or what is stored, may lead to
        assert find_deletable(world.store, GOOD) == [GOOD]
        assert GOOD in {job.job_id for job in list_jobs(world.store, everything=True)}
    delete_job(world.store, GOOD)
    assert not list(world.store.list_objects(keys.JobPaths(GOOD).folder))


class DeletedExperiment(MemoryTracking):
    """MLflow, where somebody has deleted the experiment of one job."""

    def find_run(self, experiment_id: str, job_id: str) -> str | None:
        """Refuse what belongs to that job."""
        if job_id == BAD:
            raise TrackingError("the experiment must be in the active state")
        return super().find_run(experiment_id, job_id)


def test_a_job_whose_experiment_was_deleted_waits_alone_and_people_are_told() -> None:
    """Neither it nor any other got a run until somebody restored it, and only a log said why."""
    world = CursedWorld()
    world.step(2)
    server = DeletedExperiment()
    carrier = TrackingCarrier(world.store, server)
    troubles = tracking_troubles(world.store, carrier)
    for _ in range(3):
        carry_all(world.store, carrier, troubles)
    assert GOOD in server.jobs.values()
    (trouble,) = job_status(world.store, BAD).troubles
    assert (trouble.what, trouble.why) == (
        "tracking",
        "the experiment must be in the active state",
    )
    told = [event.message for event in world.records.events(BAD)]
    assert told.count("tracking waits: the experiment must be in the active state") == 1
    assert {job.job_id: job.has_trouble for job in list_jobs(world.store)} == {
        BAD: True,
        GOOD: False,
    }
    assert "tracking: the experiment must be" in describe_job(job_status(world.store, BAD))
    (row,) = [row for row in job_table(list_jobs(world.store)).splitlines() if BAD in row]
    assert "!" in row or "waits in the background" in row
    (finding,) = diagnose_background(world.store)
    assert not finding.ok
    assert f"{BAD} (tracking)" in finding.detail
    carry_all(world.store, TrackingCarrier(world.store, MemoryTracking()), troubles)
    assert read_troubles(world.store) == []
    assert diagnose_background(world.store)[0].ok


def test_what_concerns_all_jobs_ends_the_round() -> None:
    """A store that is away would be asked once for each of a thousand jobs."""

    class Away(MemoryStore):
        def exists(self, key: str) -> bool:
            raise StoreUnavailableError("away")

    def fail() -> None:
        raise StoreUnavailableError("away")

    with pytest.raises(StoreUnavailableError):
        Troubles(Away(), "x").serve("j", fail)
    assert Troubles(MemoryStore(), "x").serve("j", fail) is None


def test_a_trouble_outlives_the_process_that_met_it() -> None:
    """The next orchestrator clears what it finds mended."""
    store = MemoryStore()

    def fail() -> None:
        raise KeyError("x")

    Troubles(store, "x").serve("j", fail)
    assert [one.why for one in read_troubles(store)] == ["KeyError: 'x'"]
    assert json.loads(store.get(keys.trouble("j", "x")).body)["format_version"] == 1
    Troubles(store, "x").serve("j", lambda: True)
    assert read_troubles(store, "j") == []


def test_what_kept_ray_from_taking_an_attempt_is_past_once_it_is_up() -> None:
    """Its job had no turn to start again, so the trouble stood beside it after it SUCCEEDED."""
    world = CursedWorld()
    world.cluster.curse = RayUnavailableError("the answer is lost")
    world.step()
    world.cluster.curse = None
    world.step()
    assert [one.what for one in read_troubles(world.store, BAD)] == ["start"]  # it is STARTING
    world.begin(BAD)
    world.step(2)
    assert world.state(BAD) == "RUNNING"
    assert read_troubles(world.store) == []


@pytest.mark.parametrize("what", [*ROUNDS, "adoption", "group", "curve"])
def test_the_loop_forgets_what_waits_for_a_job_that_has_no_turn_any_more(what: str) -> None:
    """Whoever served it last had died after that, and before its trouble was forgotten."""
    world = CursedWorld()
    put_trouble(world.store, "ended-long-ago", what)
    world.controller = world.new_controller()
    world.step()
    assert read_troubles(world.store) == []


@pytest.mark.parametrize("what", ["tracking", "notification"])
def test_other_rounds_forget_what_waits_for_a_job_without_a_mark(what: str) -> None:
    """The mark was dropped, and the process died before the trouble was."""
    world = CursedWorld()
    put_trouble(world.store, "ended-long-ago", what)
    carrier = TrackingCarrier(world.store, MemoryTracking())
    carry_all(world.store, carrier, tracking_troubles(world.store, carrier))
    notify_all(world.store)
    assert read_troubles(world.store) == []


def put_trouble(store: MemoryStore, job_id: str, what: str) -> None:
    """Write down that something waits."""
    trouble = Trouble(job_id=job_id, what=what, why="it was so", since=store.now())
    store.put(keys.trouble(job_id, what), TROUBLE.encode(trouble))


def test_a_round_that_was_broken_off_forgets_nothing() -> None:
    """Those after the one that broke it had no turn, and their trouble stands."""
    store = MemoryStore()
    put_trouble(store, "j", "x")
    troubles = Troubles(store, "x")
    with pytest.raises(LeaseLostError), troubles.round():
        raise LeaseLostError("another one leads")
    assert [one.job_id for one in read_troubles(store)] == ["j"]
    with troubles.round(is_kept=lambda job_id: job_id == "j"):
        pass
    assert [one.job_id for one in read_troubles(store)] == ["j"]


def test_a_job_that_cannot_be_adopted_keeps_its_trouble_between_two_looks() -> None:
    """It is looked at once a minute; it must not look well in the rounds between."""
    world = CursedWorld()
    world.store.put(JobPaths(BAD).spec, b"no JSON")
    for _ in range(3):
        world.step()
        assert [one.what for one in read_troubles(world.store, BAD)] == ["adoption"]


def test_what_one_that_stood_back_noted_late_is_forgotten_within_a_minute() -> None:
    """The one that leads had looked before, and knew nothing of it for as long as it led."""
    store = MemoryStore()
    troubles = Troubles(store, "x")
    with troubles.round():
        pass
    put_trouble(store, "j", "x")
    store.advance(61)
    with troubles.round():
        troubles.serve("j", lambda: True)
    assert read_troubles(store) == []
