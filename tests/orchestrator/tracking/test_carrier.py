"""Tracking: lines in the store reach MLflow once, in order, whatever crashes in between."""

import json
import math
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.errors import (
    ConditionFailedError,
    JobNotFoundError,
    StoredFormError,
    StoreUnavailableError,
    TrackingError,
)
from orchestrator.jobs.records import RECORD
from orchestrator.lifecycle.state import JobRecord, JobState, Reason
from orchestrator.store.keys import JobPaths
from orchestrator.tracking.carrier import CarryResult, TrackingCarrier
from orchestrator.tracking.lines import MetricsLine, decode_lines, flattened, segments
from orchestrator.tracking.system import SystemMetrics, sample_system
from orchestrator.tracking.writer import MetricWriter
from tests.support.fakes import FaultyStore, MemoryStore, MemoryTracking
from tests.support.records import record_of

JOB_ID = "digits-20261122-153012-k7q2"
PATHS = JobPaths(JOB_ID)
PNG = b"\x89PNG of a grid"


@pytest.fixture
def store() -> MemoryStore:
    """A store with a job that runs its first attempt."""
    store = MemoryStore()
    spec = {"kind": "train", "name": "digits", "training": {"num_steps": 20, "seed": 0}}
    store.put(PATHS.spec, json.dumps(spec | {"tracking": {"experiment": "numbers"}}).encode())
    put_record(store)
    return store


def put_record(
    store: MemoryStore, state: JobState = JobState.RUNNING, attempt: int = 1
) -> JobRecord:
    """Write the job's record."""
    record = record_of(
        JOB_ID,
        at=store.clock,
        name="digits",
        state=state,
        reason=Reason.USER_CODE if state is JobState.FAILED else None,
        attempt=attempt,
        changed_at=store.clock + timedelta(seconds=90),
    )
    store.put(PATHS.record, RECORD.encode(record))
    return record


def write_steps(store: MemoryStore, attempt: int, first: int, last: int) -> None:
    """Write what a training says in some steps, in segments of its own."""
    with MetricWriter(store, PATHS.attempt(attempt), every_s=60) as writer:
        writer.log_params({"resolved": {"attempt": attempt}})
        writer.log_tags({"mlflow.source.git.commit": "abc"})
        writer.log_dataset("digits", digest="d" * 64, source="s3://b/datasets/d")
        for step in range(first, last + 1):
            writer.log(step, {"loss": 1 / step, "learning_rate": 2e-4})
            if step % 10 == 0:
                writer.log_image(f"samples/step-{step:06d}.png", PNG, step)
                writer.log(step, {"bits_per_dim": 3 + 1 / step})
            if step % 4 == 0:
                writer.flush()
        writer.log_model("digits", source="s3://b/x", step=last, sha256="e" * 64)


def carried(store: MemoryStore | FaultyStore, server: MemoryTracking) -> CarryResult:
    """Carry as an orchestrator does that is killed and begun again at each error."""
    for _ in range(4):
        try:
            return TrackingCarrier(store, server).carry(JOB_ID)
        except (TrackingError, StoreUnavailableError, ConditionFailedError):
            continue
    raise AssertionError("the carrier does not recover")


def steps_of(server: MemoryTracking, name: str, run_id: str = "run-1") -> list[int]:
    """Return the steps at which a run has a value, with repetitions."""
    return sorted(value.step for value in server.metrics[run_id] if value.name == name)


def assert_all_is_told_once(server: MemoryTracking) -> None:
    """Check that MLflow knows 20 steps of a job, each of them once."""
    assert list(server.jobs.values()).count(JOB_ID) - len(server.deleted) == 1
    assert steps_of(server, "loss") == list(range(1, 21))
    assert steps_of(server, "bits_per_dim") == [10, 20]
    assert server.models == [("digits", JOB_ID, 12), ("digits", JOB_ID, 20)]
    assert server.datasets["run-1"] == {"d" * 64}
    assert {path for _, path in server.images} == {
        "samples/step-000010.png",
        "samples/step-000020.png",
    }
    assert server.params["run-1"]["training.num_steps"] == "20"
    assert server.params["run-1"]["resolved.attempt"] == "1"
    assert server.tags["run-1"]["ddpmctl.attempt"] == "2"
    assert server.statuses["run-1"][0] == "FINISHED"


def test_two_attempts_are_told_as_one_run(store: MemoryStore) -> None:
    """Attempt 2 does steps 9 to 12 again; a reader of the curve must not see a fold."""
    write_steps(store, 1, 1, 12)
    write_steps(store, 2, 9, 20)
    put_record(store, JobState.SUCCEEDED, attempt=2)
    server = MemoryTracking()
    result = carried(store, server)
    assert result == CarryResult(True, "run-1", "experiment-numbers")
    assert_all_is_told_once(server)


def test_the_cursor_of_a_newer_version_is_refused_before_anything_is_sent(
    store: MemoryStore,
) -> None:
    """What it means by its numbers is unknown, so lines could go out twice or never."""
    write_steps(store, 1, 1, 12)
    server = MemoryTracking()
    carried(store, server)
    written = json.loads(store.get(PATHS.tracking_cursor).body)
    assert (written["format_version"], written["run_id"]) == (1, "run-1")
    sent = Counter(steps_of(server, "loss"))
    body = json.dumps({**written, "number": 0, "format_version": 9}).encode()
    store.put(PATHS.tracking_cursor, body)
    with pytest.raises(StoredFormError, match="a newer version wrote it"):
        TrackingCarrier(store, server).carry(JOB_ID)
    assert Counter(steps_of(server, "loss")) == sent
    assert store.get(PATHS.tracking_cursor).body == body


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("side", ["store", "server"])
def test_crash_at_any_call_loses_and_doubles_nothing(side: str, after: bool) -> None:
    """The carrier may die between any two calls, of the store or of MLflow, done or not."""
    fail_at = num_calls = 0
    while fail_at <= num_calls:
        fail_at += 1
        inner = MemoryStore()
        inner.put(PATHS.spec, b'{"training": {"num_steps": 20}}')
        put_record(inner, attempt=1)
        write_steps(inner, 1, 1, 12)
        store = FaultyStore(inner, fail_at if side == "store" else 0, after=after)
        server = MemoryTracking(fail_at if side == "server" else 0, after=after)
        assert not carried(store, server).done
        write_steps(inner, 2, 9, 20)
        put_record(inner, JobState.SUCCEEDED, attempt=2)
        assert carried(store, server).done
        assert_all_is_told_once(server)
        num_calls = store.num_calls if side == "store" else server.num_calls


def test_what_was_sent_is_not_sent_again(store: MemoryStore) -> None:
    """A job that has nothing new costs MLflow no call at all."""
    write_steps(store, 1, 1, 20)
    server = MemoryTracking()
    carried(store, server)
    before = server.num_calls
    assert carried(store, server) == CarryResult(False, "run-1", "experiment-numbers")
    assert server.num_calls == before


def test_job_that_never_started_has_no_run(store: MemoryStore) -> None:
    """A job that was cancelled in the queue must not litter the page."""
    put_record(store, JobState.CANCELLED, attempt=0)
    server = MemoryTracking()
    assert carried(store, server) == CarryResult(done=True)
    assert server.num_calls == 0


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (JobState.SUCCEEDED, "FINISHED"),
        (JobState.FAILED, "FAILED"),
        (JobState.CANCELLED, "KILLED"),
    ],
)
def test_end_is_set_from_outside(store: MemoryStore, state: JobState, status: str) -> None:
    """A process that was killed cannot end its run; a crash must not read as FINISHED."""
    write_steps(store, 1, 1, 4)
    server = MemoryTracking()
    carried(store, server)
    record = put_record(store, state)
    assert carried(store, server).done
    assert server.statuses["run-1"] == (status, int(record.changed_at.timestamp() * 1000))


def test_retried_job_runs_again_in_its_run(store: MemoryStore) -> None:
    """`retry` goes on with the same job, so with the same run."""
    server = MemoryTracking()
    write_steps(store, 1, 1, 12)
    put_record(store, JobState.FAILED)
    assert carried(store, server).done
    put_record(store, JobState.RUNNING, attempt=2)
    assert not carried(store, server).done
    assert server.statuses["run-1"][0] == "RUNNING"
    write_steps(store, 2, 13, 20)
    put_record(store, JobState.SUCCEEDED, attempt=2)
    assert carried(store, server).done
    assert_all_is_told_once(server)


def test_refused_value_does_not_hold_up_the_others(store: MemoryStore) -> None:
    """One bad name must not keep a job's curves from MLflow for ever."""
    with MetricWriter(store, PATHS.attempt(1)) as writer:
        for step in range(1, 8):
            writer.log(step, {"loss": 0.5, **({"refused": 1.0} if step == 5 else {})})
    server = MemoryTracking()
    carried(store, server)
    assert steps_of(server, "loss") == list(range(1, 8))


def test_image_that_is_gone_does_not_hold_up_the_others(store: MemoryStore) -> None:
    """Somebody may have cleaned up the store; the rest is still worth to be shown."""
    write_steps(store, 1, 1, 12)
    store.delete(f"{PATHS.attempt(1).folder}images/samples/step-000010.png")
    server = MemoryTracking()
    carried(store, server)
    assert steps_of(server, "loss") == list(range(1, 13))


def test_lost_database_is_filled_again(store: MemoryStore) -> None:
    """The store is the truth: MLflow may lose all it has."""
    write_steps(store, 1, 1, 12)
    server = MemoryTracking()
    carried(store, server)
    server.lose_everything()
    write_steps(store, 1, 13, 16)
    assert carried(store, server).run_id is None
    result = carried(store, server)
    assert result.run_id is not None
    assert steps_of(server, "loss", result.run_id) == list(range(1, 17))


def test_run_that_was_deleted_by_hand_stays_deleted(store: MemoryStore) -> None:
    """Whoever deletes a run does not want it back."""
    write_steps(store, 1, 1, 12)
    server = MemoryTracking()
    carried(store, server)
    server.delete_run("run-1")
    write_steps(store, 1, 13, 20)
    put_record(store, JobState.SUCCEEDED)
    assert carried(store, server).done
    assert list(server.jobs) == ["run-1"]
    assert steps_of(server, "loss") == list(range(1, 13))


class OvertakenTracking(MemoryTracking):
    """A tracking server where a second carrier acts right after the first looked for a run."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__()
        self._store = store
        self._is_overtaken = False

    def find_run(self, experiment_id: str, job_id: str) -> str | None:
        """Return what was there when it was asked."""
        found = super().find_run(experiment_id, job_id)
        if not self._is_overtaken:
            self._is_overtaken = True
            TrackingCarrier(self._store, self).carry(job_id)
        return found


def test_second_carrier_makes_no_second_run(store: MemoryStore) -> None:
    """A paused orchestrator that wakes up next to its successor leaves one run behind."""
    server = OvertakenTracking(store)
    write_steps(store, 1, 1, 12)
    with pytest.raises(ConditionFailedError):
        TrackingCarrier(store, server).carry(JOB_ID)
    assert set(server.jobs) - server.deleted == {"run-1"}
    assert steps_of(server, "loss") == list(range(1, 13))
    assert carried(store, server).run_id == "run-1"


def test_little_time_leaves_the_rest_for_the_next_call(store: MemoryStore) -> None:
    """A long backlog of one job must not stop the orchestrator's loop."""
    with MetricWriter(store, PATHS.attempt(1), every_s=60) as writer:
        for step in range(1, 2501):
            writer.log(step, {"loss": 0.5})
            if step % 1000 == 0:
                writer.flush()
    server = MemoryTracking()
    put_record(store, JobState.SUCCEEDED)
    carrier = TrackingCarrier(store, server)
    seen = []
    while not carrier.carry(JOB_ID, budget_s=0.0).done:
        seen.append(len(server.metrics["run-1"]))
    assert seen == [1000, 2000, 2500]


def test_load_of_the_machine_is_told_for_each_attempt(store: MemoryStore) -> None:
    """It belongs to a time, not to a step: redone steps have a load of their own."""
    server = MemoryTracking()
    for attempt in (1, 2):
        with MetricWriter(store, PATHS.attempt(attempt)) as writer:
            writer.log(7, {"loss": 0.5})
            writer.log_system({"system/cpu": 10.0 * attempt})
        put_record(store, attempt=attempt)
        carried(store, server)
    assert steps_of(server, "loss") == [7]
    loads = {value.value for value in server.metrics["run-1"] if value.name == "system/cpu"}
    assert loads == {10.0, 20.0}


def test_a_fleets_values_stand_over_time_each_at_a_step_of_its_own(store: MemoryStore) -> None:
    """As many images are done for long; after a repair fewer are, and are told all the same."""
    server, since = MemoryTracking(), store.clock
    for attempt, told in ((1, ((5, 0), (5, 0), (10, 128))), (2, ((60, 64), (65, 128)))):
        with MetricWriter(store, PATHS.attempt(attempt)) as writer:
            for second, images in told:
                at = since + timedelta(seconds=second)
                writer.log_over_time({"images_done": images}, since, at)
        put_record(store, attempt=attempt)
        carried(store, server)
    values = sorted((value.step, value.value) for value in server.metrics["run-1"])
    assert values == [(5, 0), (6, 0), (10, 128), (60, 64), (65, 128)]


def test_unreadable_line_is_passed_over(store: MemoryStore) -> None:
    """A later version's kind of line, or a damaged one, costs that line alone."""
    write_steps(store, 1, 1, 12)
    store.put(segments(store, PATHS.attempt(1)).key(99), b'{"kind": "video"}\n{"kin\n')
    server = MemoryTracking()
    carried(store, server)
    assert steps_of(server, "loss") == list(range(1, 13))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fail_at", range(1, 7))
def test_outage_of_the_store_delays_lines_only(
    store: MemoryStore, fail_at: int, after: bool
) -> None:
    """The training goes on; nothing is lost and nothing stands twice when the store is back."""
    faulty = FaultyStore(store, fail_at, after=after)
    with MetricWriter(faulty, PATHS.attempt(1), every_s=60, first_pause_s=0.001) as writer:
        for step in range(1, 13):
            writer.log(step, {"loss": 1 / step})
            if step % 4 == 0:
                writer.log_image(f"samples/step-{step:06d}.png", PNG, step)
                writer.flush()
    lines = [
        line
        for _, body in segments(store, PATHS.attempt(1)).bodies()
        for line in decode_lines(body)[0]
        if isinstance(line, MetricsLine)
    ]
    assert [line.step for line in lines] == list(range(1, 13))
    assert sum("/images/" in key for key in store.objects) == 3


def test_dead_store_is_told_at_the_flush(store: MemoryStore) -> None:
    """Before a checkpoint is committed, its metrics must be safe; `log` itself never waits."""
    writer = MetricWriter(FaultyStore(store, 1, dead=True), PATHS.attempt(1))
    writer.log(1, {"loss": 0.5})
    with pytest.raises(StoreUnavailableError, match="1 line of metrics"):
        writer.flush(timeout_s=0.05)
    with pytest.raises(StoreUnavailableError):
        writer.close(timeout_s=0.05)


def test_two_writers_of_an_attempt_share_the_numbers(store: MemoryStore) -> None:
    """The driver and the first rank may both have something to say."""
    with (
        MetricWriter(store, PATHS.attempt(1), every_s=60) as driver,
        MetricWriter(store, PATHS.attempt(1), every_s=60) as worker,
    ):
        for step in range(1, 6):
            driver.log(step, {"a": 1.0})
            driver.flush()
            worker.log(step, {"b": 2.0})
            worker.flush()
    server = MemoryTracking()
    carried(store, server)
    names = Counter(value.name for value in server.metrics["run-1"])
    assert names == {"a": 5, "b": 5}


def test_values_that_are_not_finite_arrive(store: MemoryStore) -> None:
    """A loss that became NaN is the most important value of a run, and JSON has none."""
    with MetricWriter(store, PATHS.attempt(1)) as writer:
        writer.log(1, {"loss": math.nan, "grad_norm": math.inf})
    (body,) = (body for _, body in segments(store, PATHS.attempt(1)).bodies())
    (line,), num_unreadable = decode_lines(body)
    assert num_unreadable == 0
    assert isinstance(line, MetricsLine)
    assert math.isnan(line.values["loss"])
    assert line.values["grad_norm"] == math.inf


@pytest.mark.parametrize("path", ["../spec.json", "/etc/x.png", "a//b.png", "grid.jpg", ".png"])
def test_image_path_cannot_leave_the_attempt(store: MemoryStore, path: str) -> None:
    """The path becomes a part of a key."""
    with MetricWriter(store, PATHS.attempt(1)) as writer, pytest.raises(ValueError, match="path"):
        writer.log_image(path, PNG, 1)


def test_settings_are_flattened_by_their_way() -> None:
    """MLflow's params have one level; lists stay one value."""
    nested = {"a": {"b": {"c": 1}, "d": None}, "e": [1, 2]}
    assert flattened(nested) == {"a.b.c": "1", "a.d": "None", "e": "[1, 2]"}


def test_load_of_the_machine_is_sampled_in_the_background(store: MemoryStore) -> None:
    """The values have the names that MLflow shows on its page of system metrics."""
    assert sample_system()["system/system_memory_usage_megabytes"] > 0
    with MetricWriter(store, PATHS.attempt(1), every_s=60) as writer:
        writer.log(42, {"loss": 0.5})
        with SystemMetrics(writer.log_system, every_s=0.005):
            while not any("cpu" in text for text in flushed(store, writer)):
                continue
    server = MemoryTracking()
    carried(store, server)
    assert set(steps_of(server, "system/cpu_utilization_percentage")) == {42}


def flushed(store: MemoryStore, writer: MetricWriter) -> list[str]:
    """Return all that was written up to now."""
    writer.flush()
    return [body.decode() for _, body in segments(store, PATHS.attempt(1)).bodies()]


def test_run_of_a_groups_child_stands_below_the_groups_run(store: MemoryStore) -> None:
    """The child's run is made once the group's is there, so that MLflow can nest it."""
    server, group = MemoryTracking(), JobPaths("chain")
    child = replace(put_record(store), parent="chain", step="train")
    store.put(PATHS.record, RECORD.encode(child))
    store.put(group.spec, json.dumps({"kind": "pipeline", "children": [{"step": "a"}]}).encode())
    store.put(group.record, RECORD.encode(replace(child, job_id="chain", parent="", step="")))
    write_steps(store, 1, 1, 20)
    assert not carried(store, server).done
    assert server.num_calls == 0
    assert TrackingCarrier(store, server).carry("chain").run_id == "run-1"
    assert carried(store, server).run_id == "run-2"
    assert server.tags["run-2"]["mlflow.parentRunId"] == "run-1"
    assert server.tags["run-2"]["ddpmctl.group_step"] == "train"
    assert "mlflow.parentRunId" not in server.tags["run-1"]
    assert server.params["run-1"] == {"kind": "pipeline"}


def test_run_of_a_child_whose_group_was_deleted_stands_alone(store: MemoryStore) -> None:
    """Its metrics must not wait for what never comes."""
    store.put(PATHS.record, RECORD.encode(replace(put_record(store), parent="gone", step="a")))
    server = MemoryTracking()
    assert carried(store, server).run_id == "run-1"
    assert "mlflow.parentRunId" not in server.tags["run-1"]


@pytest.mark.parametrize("is_gone", [False, True], ids=["being deleted", "deleted"])
def test_nothing_is_left_of_a_job_that_was_deleted_while_it_was_carried(
    store: MemoryStore, *, is_gone: bool
) -> None:
    """Its cursor was put into the empty folder, and nobody ever removed that."""
    write_steps(store, 1, 1, 4)

    class Deleting(MemoryTracking):
        def create_run(self, experiment_id: str, job_id: str, start_ms: int) -> str:
            stored = store.get(PATHS.record)
            record = RECORD.decode(stored.body)
            store.put(PATHS.record, RECORD.encode(replace(record, deleted_at=store.now())))
            for key in [PATHS.spec, PATHS.record] if is_gone else []:
                store.delete(key)
            return super().create_run(experiment_id, job_id, start_ms)

    with pytest.raises(JobNotFoundError):
        TrackingCarrier(store, Deleting()).carry(JOB_ID)
    assert not store.exists(PATHS.tracking_cursor)
