"""One job's trouble ends with its turn, in every round, and is told."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.client.doctor.background import diagnose_background
from orchestrator.client.garbage import collect_garbage
from orchestrator.client.status import job_status, list_jobs
from orchestrator.client.submit import submit_job
from orchestrator.controller.notifications import notify_all
from orchestrator.errors import LeaseLostError, StoreUnavailableError, TrackingError
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.troubles import Troubles, read_troubles
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobState
from orchestrator.store import keys
from orchestrator.store.objects import ObjectInfo, StoredObject
from orchestrator.tracking.carrier import TrackingCarrier
from orchestrator.tracking.loop import carry_all, tracking_troubles
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
        if self.curse is not None and key.startswith(f"{keys.JOBS}{BAD}/"):
            raise self.curse

    def get(self, key: str) -> StoredObject:
        """Return an object, or fail."""
        self._look(key)
        return super().get(key)

    def put(self, key: str, body: bytes, **condition: Any) -> str:
        """Write an object, or fail."""
        self._look(key)
        return super().put(key, body, **condition)

    def exists(self, key: str) -> bool:
        """Look, or fail."""
        self._look(key)
        return super().exists(key)

    def list_objects(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """List, or fail."""
        self._look(prefix)
        return super().list_objects(prefix, after)


class CursedWorld(World):
    """A world with two jobs of which one is cursed."""

    def __init__(self) -> None:
        super().__init__()
        self.store: CursedStore = CursedStore()
        self.records = RecordStore(self.store)
        self.controller = self.new_controller()
        self.cluster.node_ids = ["n1", "n2"]
        for job_id in (BAD, GOOD):
            submit_job(self.store, train_job(), job_id)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_loop_serves_all_others_whatever_one_job_meets(error: Exception) -> None:
    """Before adoption, and while it runs: all others waited behind one job."""
    for num_steps in (0, 1, 3):
        world = CursedWorld()
        world.step(num_steps)
        world.store.curse = error
        world.step(2)
        assert world.state(GOOD) in ("STARTING", "RUNNING")
        world.begin(GOOD)
        world.step(2)
        world.end(GOOD, Outcome(succeeded=True, progress=10))
        world.step(3)
        assert world.state(GOOD) == "SUCCEEDED", num_steps


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_other_rounds_serve_all_others_whatever_one_job_meets(error: Exception) -> None:
    """Tracking, notifications and garbage stopped at the first job that they could not serve."""
    world = CursedWorld()
    for job_id in (BAD, GOOD):
        current = world.records.read(job_id)
        ended = current.record.moved_to(JobState.CANCELLED, at=world.store.now())
        world.records.move(current, ended)
        world.store.put(keys.notify_marker(job_id), b"{}")
    world.store.curse = error
    carrier = TrackingCarrier(world.store, MemoryTracking())
    carry_all(world.store, carrier, tracking_troubles(world.store, carrier))
    assert not world.store.exists(keys.tracking_marker(GOOD))
    notify_all(world.store)
    assert not world.store.exists(keys.notify_marker(GOOD))
    collect_garbage(world.store, dry_run=True)


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
