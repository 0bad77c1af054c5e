"""The orchestrator's loop, on a store in memory and a cluster that tests move by hand."""

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.attempts.attempt import Attempt
from orchestrator.attempts.running import must_stop
from orchestrator.client.status import job_status, list_jobs, request
from orchestrator.client.submit import submit_job, submit_with_smoke
from orchestrator.controller import answering
from orchestrator.controller.attempt_steps import AttemptControl
from orchestrator.controller.lease import Lease
from orchestrator.controller.models import ModelFinder, ModelResolution
from orchestrator.controller.requests import handle_request
from orchestrator.errors import AttemptSupersededError, ConditionFailedError, LeaseLostError
from orchestrator.jobs.inbox import Verb
from orchestrator.jobs.marks import Mark
from orchestrator.jobs.records import RecordStore, VersionedRecord
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import JobState, Reason
from orchestrator.specs.resources import TrainResources
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import StoredObject
from tests.support.models import model_of
from tests.support.world import World, train_job


@pytest.fixture
def world() -> World:
    """A world with nothing in it."""
    return World()


def test_a_job_goes_from_the_queue_to_its_end(world: World) -> None:
    """The whole path, with an event for each move."""
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    assert world.state(job_id) == "STARTING"
    assert f"{job_id}.1" in world.cluster.started
    world.begin(job_id)
    world.step()
    assert world.state(job_id) == "RUNNING"
    world.end(job_id, Outcome(succeeded=True, progress=10))
    world.step(2)
    assert world.state(job_id) == "SUCCEEDED"
    states = [event.state for event in world.records.events(job_id)]
    assert states == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    assert not world.store.exists(Mark.QUEUE.key(job_id))
    assert [job.state for job in list_jobs(world.store)] == ["SUCCEEDED"]


def beat(
    world: World, job_id: str, attempt: int, done: int, committed: int, **more: object
) -> None:
    """Write what the driver of a training of ten steps last said."""
    said = {"at": world.store.now().isoformat(), "phase": "running", "total": 10, "unit": "steps"}
    said |= {"done": done, "committed": committed, **more}
    key = JobPaths(job_id).attempt(attempt).heartbeat
    world.store.put(key, json.dumps(said).encode())


def running_at_7_of_10(world: World) -> str:
    """Return the id of a training that runs, at step 7 of 10, of which it has committed 4."""
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    world.begin(job_id)
    beat(world, job_id, 1, done=7, committed=4)
    world.step()
    return job_id


def shown(world: World, job_id: str) -> tuple[str, float, float]:
    """Return what `status` shows of a job's progress."""
    status = job_status(world.store, job_id)
    return status.state, status.done, status.committed


def test_an_ended_job_shows_what_it_committed_not_its_last_heartbeat(world: World) -> None:
    """The last heartbeat of a training of seconds was written some steps before its end."""
    job_id = running_at_7_of_10(world)
    assert shown(world, job_id) == ("RUNNING", 7, 4)
    world.end(job_id, Outcome(succeeded=True, progress=10))
    world.step(2)
    assert shown(world, job_id) == ("SUCCEEDED", 10, 10)
    assert [job.done for job in list_jobs(world.store)] == [10]


def test_a_job_that_is_tried_again_shows_what_it_will_go_on_from(world: World) -> None:
    """Steps that were lost are not shown, and those that are committed do not vanish."""
    job_id = running_at_7_of_10(world)
    world.end(job_id, Outcome(reason=Reason.WORKER_LOST, message="lost"))
    world.step(3)
    assert shown(world, job_id)[1:] == (4, 4)
    world.store.advance(60)
    world.step()
    assert shown(world, job_id) == ("STARTING", 4, 4)
    beat(world, job_id, 2, done=0, committed=0)  # it has not looked for a checkpoint yet
    assert shown(world, job_id)[1:] == (4, 4)
    beat(world, job_id, 2, done=5, committed=4)
    assert shown(world, job_id)[1:] == (5, 4)


def test_submitting_the_same_id_twice_is_submitting_once(world: World) -> None:
    """A client that timed out submits again and must not get two jobs."""
    assert submit_job(world.store, train_job(), "mine").is_new
    assert not submit_job(world.store, train_job(), "mine").is_new
    world.step()
    assert list(world.cluster.started) == ["mine.1"]


def test_jobs_that_do_not_fit_together_run_one_after_the_other(world: World) -> None:
    """The first takes all CPUs; the second waits for its end."""
    first = submit_job(world.store, train_job("a")).job_id
    world.store.advance(1)
    second = submit_job(world.store, train_job("b")).job_id
    world.step()
    assert (world.state(first), world.state(second)) == ("STARTING", "QUEUED")
    world.begin(first)
    world.step()
    world.end(first, Outcome(succeeded=True))
    world.step(2)
    assert (world.state(first), world.state(second)) == ("SUCCEEDED", "STARTING")


def test_a_lost_driver_is_tried_again_from_where_it_was(world: World) -> None:
    """The next attempt has a new number, after a back-off."""
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    world.begin(job_id)
    world.step()
    world.beat(job_id, committed=5)
    world.end(job_id, None)
    world.step(3)
    record = world.record(job_id)
    assert record.state is JobState.QUEUED
    assert record.attempts[0].reason is Reason.DRIVER_LOST
    assert record.attempts[0].progress == 5
    world.store.advance(60)
    world.step()
    assert world.record(job_id).attempt == 2


@pytest.mark.parametrize("reason", [None, Reason.WORKER_LOST])
def test_what_an_attempt_committed_last_counts_though_it_never_said_so(
    world: World, reason: Reason | None
) -> None:
    """It died between the commit and the next heartbeat; its progress renews the budget."""
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    world.begin(job_id)
    world.step()
    world.store.put(JobPaths(job_id).checkpoint(7), b"{}")
    world.end(job_id, Outcome(reason=reason, message="lost") if reason else None)
    world.step(3)
    assert world.record(job_id).attempts[0].progress == 7


@pytest.mark.parametrize("reason", [Reason.BAD_INPUT, Reason.DIVERGED, Reason.USER_CODE])
def test_what_another_attempt_can_not_cure_fails_at_once(world: World, reason: Reason) -> None:
    """490,000 retries of a job whose input is wrong help nobody."""
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    world.begin(job_id)
    world.step()
    world.end(job_id, Outcome(reason=reason, message="it is so"))
    world.step(3)
    record = world.record(job_id)
    assert (record.state, record.reason) == (JobState.FAILED, reason)
    assert "it is so" in record.message


def test_no_job_is_queued_again_while_a_worker_of_it_lives(world: World) -> None:
    """Two attempts that write at once is what must never be."""
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    world.begin(job_id)
    world.step()
    attempt = JobPaths(job_id).attempt(1)
    worker = {
        "role": "worker-0",
        "pid": 7,
        "born_s": 1.0,
        "boot_id": "b",
        "node_id": "n1",
        "host": "h",
    }
    world.store.put(f"{attempt.processes}worker-0-7.json", json.dumps(worker).encode())
    world.cluster.running.add(7)
    world.end(job_id, None)
    world.step(3)
    assert world.state(job_id) == "STOPPING"
    while 7 in world.cluster.running:
        assert world.state(job_id) == "STOPPING"
        world.step()
    world.step()
    assert world.record(job_id).attempts[0].ended_at is not None


def test_a_queued_job_is_cancelled_at_once(world: World) -> None:
    """There is nothing to wait for."""
    world.cluster.cpus = 0
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    request(world.store, job_id, Verb.CANCEL)
    world.step()
    assert world.state(job_id) == "CANCELLED"
    assert not list(world.store.list_objects(keys.INBOX))


def test_a_running_job_is_told_to_stop_and_cancelled_when_it_is_gone(world: World) -> None:
    """It gets its grace; CANCELLED means that nothing of it runs."""
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    world.begin(job_id)
    world.step()
    request(world.store, job_id, Verb.CANCEL, 20)
    world.step(2)
    assert world.state(job_id) == "STOPPING"
    told = Attempt.open(world.store, job_id, 1).stop_request()
    assert told is not None
    assert (told.grace_s, told.reason) == (20, Reason.CANCELLED_BY_USER)
    world.end(job_id, Outcome(stopped=True, progress=4))
    world.step()
    assert world.state(job_id) == "CANCELLED"


def test_a_cancelled_job_can_be_retried(world: World) -> None:
    """It goes back into the queue with its attempts counted anew."""
    world.cluster.cpus = 0
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    request(world.store, job_id, Verb.CANCEL)
    world.step()
    world.cluster.cpus = 4
    request(world.store, job_id, Verb.RETRY)
    world.step(2)
    assert world.state(job_id) == "STARTING"
    assert [job.job_id for job in list_jobs(world.store)] == [job_id]


def test_a_request_is_handled_once_whoever_reads_it(world: World) -> None:
    """An orchestrator that dies before it drops a request leaves it to be read again."""
    world.cluster.cpus = 0
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    key = request(world.store, job_id, Verb.CANCEL)
    body = world.store.get(key).body
    world.step()
    num_events = len(world.records.events(job_id))
    request(world.store, job_id, Verb.RETRY)
    world.step()
    world.store.put(key, body)
    world.step()
    assert world.state(job_id) == "QUEUED"
    assert len(world.records.events(job_id)) == num_events + 1


def test_a_new_orchestrator_goes_on_where_the_old_one_was(world: World) -> None:
    """Nothing lives in memory only."""
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    world.begin(job_id)
    world.controller = world.new_controller()
    world.step()
    assert world.state(job_id) == "RUNNING"
    world.controller = world.new_controller()
    world.end(job_id, Outcome(succeeded=True))
    world.controller = world.new_controller()
    world.step(2)
    assert world.state(job_id) == "SUCCEEDED"


def test_an_orchestrator_that_was_taken_over_changes_nothing(world: World) -> None:
    """It wakes after the second one acted: its writes must not match."""
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    old = world.controller
    world.controller = world.new_controller()
    before = world.store.get(JobPaths(job_id).record).etag
    world.begin(job_id)
    old.step()
    assert world.store.get(JobPaths(job_id).record).etag == before
    world.step()
    assert world.state(job_id) == "RUNNING"


def test_an_orchestrator_without_its_lease_does_not_write(world: World) -> None:
    """The guard stands before each write."""
    job_id = submit_job(world.store, train_job()).job_id
    current = world.records.read(job_id)
    lease = Lease(world.store, "late", term_s=0.0)
    with pytest.raises(LeaseLostError):
        RecordStore(world.store, lease.guard).write(current, current.record)


def test_two_writers_of_one_record_do_not_both_win(world: World) -> None:
    """A move is made from what was read, or not at all."""
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    current = world.records.read(job_id)
    standing = world.records.write(current, current.record)
    with pytest.raises(ConditionFailedError):
        world.records.write(current, replace(current.record, message="another's"))
    # The very same record again is a put whose answer was lost: it has won already.
    assert world.records.write(current, current.record) == standing


def test_an_attempt_that_was_never_handed_to_ray_is_handed_over_later(world: World) -> None:
    """The orchestrator died, or Ray did not answer, between the record and the submit."""
    job_id = submit_job(world.store, train_job()).job_id
    world.cluster.is_reachable = False
    world.step()
    assert world.state(job_id) == "STARTING"
    world.cluster.is_reachable = True
    world.controller = world.new_controller()
    world.step()
    assert f"{job_id}.1" in world.cluster.started


def test_a_sample_job_waits_for_its_model_and_says_for_what(world: World) -> None:
    """It may be submitted while the training still runs."""
    training = submit_job(world.store, train_job("digits")).job_id
    sampling = submit_job(
        world.store,
        SampleJob(kind="sample", name="s", model=ModelRef(job="digits"), num_samples=4),
    ).job_id
    world.step()
    record = world.record(sampling)
    assert (record.state, record.reason) == (JobState.QUEUED, Reason.WAITING_FOR_MODEL)
    assert training in record.message


def test_a_sample_job_of_a_job_that_left_no_checkpoint_fails_as_bad_input(world: World) -> None:
    """Waiting longer would not help."""
    world.cluster.cpus = 0
    training = submit_job(world.store, train_job("digits")).job_id
    world.step()
    request(world.store, training, Verb.CANCEL)
    world.step()
    sampling = submit_job(
        world.store,
        SampleJob(kind="sample", name="s", model=ModelRef(job="digits"), num_samples=4),
    ).job_id
    world.step(2)
    assert world.record(sampling).reason is Reason.BAD_INPUT


def test_a_state_that_nobody_confirms_is_shown_as_unconfirmed(world: World) -> None:
    """When all of Ray is dead, no record can be written: readers must say so."""
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    assert not job_status(world.store, job_id).stale
    world.store.advance(31)
    shown = job_status(world.store, job_id)
    assert shown.stale
    assert shown.confirmed_at < world.store.now()


def test_a_job_is_listed_before_any_orchestrator_has_seen_it(world: World) -> None:
    """A spec without a record reads as QUEUED."""
    job_id = submit_job(world.store, train_job()).job_id
    assert [(job.job_id, job.state) for job in list_jobs(world.store)] == [(job_id, "QUEUED")]


def test_a_mark_without_a_spec_is_swept_away(world: World) -> None:
    """A `submit` that died halfway leaves no half-made job."""
    world.store.put(Mark.QUEUE.key("ghost"), b"{}")
    world.step()
    assert list_jobs(world.store) == []
    world.store.advance(3600)
    world.step()
    assert not world.store.exists(Mark.QUEUE.key("ghost"))


@pytest.mark.parametrize("grace", [None, "soon", -1.0, float("inf")])
def test_a_request_with_an_unusable_grace_is_handled_with_the_default(
    world: World, grace: object
) -> None:
    """An older or a foreign client may have written it, and all jobs wait behind it."""
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    world.begin(job_id)
    world.step()
    asked = {"job_id": job_id, "verb": "cancel", "attempt": 1, "at": world.store.now().isoformat()}
    body = json.dumps({**asked, "details": {"grace_s": grace}}).encode()
    world.store.put(keys.inbox_request("1-a", job_id, 1, "cancel"), body)
    world.step(2)
    assert world.record(job_id).stop_grace_s == 30.0


def test_trouble_with_one_job_or_request_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is one for all: what breaks in a job's turn ends with that turn."""
    one_cpu = {"resources": TrainResources(cpus_per_worker=1)}
    for name in ("odd", "other"):
        submit_job(world.store, train_job(name).model_copy(update=one_cpu), name)
    odd, other = "odd", "other"
    world.step()
    follow, handle = AttemptControl.follow, handle_request

    def odd_follow(self: AttemptControl, current: VersionedRecord, *rest: Any) -> VersionedRecord:
        assert current.record.job_id != odd
        return follow(self, current, *rest)

    def odd_handle(records: RecordStore, current: VersionedRecord, *rest: Any) -> VersionedRecord:
        assert current.record.job_id != odd
        return handle(records, current, *rest)

    monkeypatch.setattr(AttemptControl, "follow", odd_follow)
    monkeypatch.setattr(answering, "handle_request", odd_handle)
    request(world.store, odd, Verb.CANCEL)
    world.begin(other)
    world.step()
    assert (world.state(odd), world.state(other)) == ("STARTING", "RUNNING")
    assert list(world.store.list_objects(keys.INBOX))  # the trouble may pass
    world.store.advance(answering.DROP_REQUEST_AFTER.total_seconds())
    world.step()
    assert not list(world.store.list_objects(keys.INBOX))


def test_a_record_that_nobody_can_read_holds_up_no_other_job(world: World) -> None:
    """A disk that broke it broke one job, not the queue."""
    for name in ("odd", "other"):
        submit_job(world.store, train_job(name), name)
    world.store.put(JobPaths("odd").record, b"{")
    world.step(2)
    assert world.state("other") == "STARTING"


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.CANCELLED])
def test_a_driver_that_comes_too_late_finds_that_nobody_wants_it(
    world: World, state: JobState
) -> None:
    """Ray may start a process long after its attempt was given up."""
    submit_job(world.store, train_job("late"), "late")
    world.step()
    records = RecordStore(world.store)
    current = records.read("late")
    assert Attempt.open(world.store, "late", 1).number == 1
    records.write(current, replace(current.record, state=state))
    with pytest.raises(AttemptSupersededError):
        Attempt.open(world.store, "late", 1)


def test_an_attempt_stops_once_it_was_given_up_or_its_job_deleted(world: World) -> None:
    """It may be cut off from Ray and still reach the store, where another attempt is to begin."""
    submit_job(world.store, train_job("a"), "a")
    world.step()
    records = RecordStore(world.store)
    running, current = Attempt.open(world.store, "a", 1), records.read("a")
    assert not must_stop(running)
    given_up = records.write(current, replace(current.record, state=JobState.QUEUED))
    assert must_stop(running)
    records.write(given_up, replace(current.record, attempt=2))
    assert must_stop(running)
    world.store.delete(JobPaths("a").record)
    assert not must_stop(running)  # it reads as one that never began
    world.store.delete(JobPaths("a").spec)
    assert must_stop(running)


def test_workers_are_known_to_be_there_until_their_attempt_ends(world: World) -> None:
    """Ray sees these; what is only about to start has to be counted besides."""
    spec = train_job("a")
    submit_job(world.store, spec, "a")
    world.step()
    control = AttemptControl(world.store, world.cluster, world.records)
    starting = world.record("a")
    world.begin("a")
    worker = {"role": "worker-0", "pid": 101, "born_s": 1.0, "boot_id": "b", "node_id": "n1"}
    key = f"{JobPaths('a').attempt(1).processes}worker-0-101.json"
    world.store.put(key, json.dumps({**worker, "host": "h"}).encode())
    assert not control.workers_there(starting)
    control.follow(world.records.read("a"), spec, None)
    assert control.workers_there(starting) == {"n1": 1}
    world.end("a", Outcome(succeeded=True))
    for _ in range(2):
        control.follow(world.records.read("a"), spec, None)
    assert world.state("a") == "SUCCEEDED"
    assert not control.workers_there(starting)


def test_a_retry_keeps_the_marks_that_somebody_is_just_dropping(world: World) -> None:
    """MLflow and the webhook look at marks alone: without one they hear of no new attempt."""
    world.cluster.cpus = 0
    job_id = submit_job(world.store, train_job()).job_id
    world.step()
    request(world.store, job_id, Verb.CANCEL)
    world.step()
    mark = Mark.TRACKING.key(job_id)
    world.records.drop_mark(Mark.TRACKING, job_id)
    assert not world.store.exists(mark)
    request(world.store, job_id, Verb.RETRY)
    world.step()
    assert world.store.exists(mark)
    world.records.drop_mark(Mark.TRACKING, job_id)  # by what was read before the retry
    assert world.store.exists(mark)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_checkpoint_that_a_set_draws_from_is_kept_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """The training may be retried, and would delete it; one that is gone is looked for again."""
    commit = JobPaths("digits").checkpoint(7)
    if is_there:
        world.store.put(commit, b"{}")
    monkeypatch.setattr(ModelFinder, "find", lambda *_: ModelResolution(model_of("digits", 7)))
    sampling = submit_job(
        world.store,
        SampleJob(kind="sample", name="s", model=ModelRef(job="digits"), num_samples=4),
    ).job_id
    world.step()
    assert bool(world.record(sampling).model) is is_there
    assert world.state(sampling) == ("STARTING" if is_there else "QUEUED")
    assert world.store.exists(JobPaths("digits").reference(7, sampling)) is is_there


def test_a_request_that_cannot_be_read_is_dropped(world: World) -> None:
    """Another version may have written it."""
    key = keys.inbox_request("1-a", "x", 1, "cancel")
    world.store.put(key, b'{"verb": "cancel"}')
    world.step()
    assert not world.store.exists(key)


def test_one_cancel_ends_a_job_and_its_smoke_test(world: World) -> None:
    """The smoke test ran on, for a job that nobody wanted any more."""
    job_id = submit_with_smoke(world.store, train_job(workers=2), "j").job_id
    world.step()
    request(world.store, job_id, Verb.CANCEL)
    world.step(3)
    assert world.state(job_id) == "CANCELLED"
    assert world.record("j-smoke").reason == "CANCELLED_BY_USER"


def test_an_attempt_whose_heart_beats_and_that_gets_no_further_shows(world: World) -> None:
    """A host that was cut off left RUNNING with nothing moving, for as long as Ray believed it."""
    job_id = running_at_7_of_10(world)
    assert not job_status(world.store, job_id).stalled
    moved_at = world.store.now().isoformat()
    world.store.advance(31)
    beat(world, job_id, 1, done=7, committed=4, rate_per_s=2.0, moved_at=moved_at)
    world.step()
    world.store.put(keys.LEASE, world.store.get(keys.LEASE).body)  # the orchestrator is well
    status = job_status(world.store, job_id)
    assert (status.state, status.stale, status.stalled) == ("RUNNING", False, True)
    assert [job.stalled for job in list_jobs(world.store)] == [True]
    assert status.rate_per_s == 0  # the pace that it had is not the pace that it has


def test_a_job_that_ended_unseen_is_listed_with_all_that_its_attempt_said(world: World) -> None:
    """`list` had neither total nor unit of it, where `status` has both."""
    job_id = running_at_7_of_10(world)
    beat(world, job_id, 1, done=7, committed=4, total=10, unit="steps")
    ended = world.record(job_id).moved_to(JobState.SUCCEEDED, at=world.store.now())
    world.records.write(world.records.read(job_id), ended)
    world.controller = world.new_controller()
    world.step()
    (listed,) = list_jobs(world.store)
    assert (listed.state, listed.total, listed.unit) == ("SUCCEEDED", 10, "steps")


def test_what_an_attempt_is_worth_at_its_very_end_stands_in_the_list(world: World) -> None:
    """The bound is known only when the attempt ends: its last word came after the look at it."""
    job_id = running_at_7_of_10(world)
    outcome = JobPaths(job_id).attempt(1).outcome
    read = world.store.get

    def says_its_last_word(key: str) -> StoredObject:
        if key == outcome:
            beat(world, job_id, 1, done=10, committed=10, scores={"loss": 0.1, "bpd": 4.5})
        return read(key)

    world.end(job_id, Outcome(succeeded=True, progress=10))
    world.store.get = says_its_last_word  # type: ignore[method-assign]
    world.step(2)
    (listed,) = list_jobs(world.store)
    assert (listed.state, listed.scores) == ("SUCCEEDED", {"loss": 0.1, "bpd": 4.5})
    assert job_status(world.store, job_id).scores == listed.scores


def test_looking_at_the_queue_changes_nothing(world: World) -> None:
    """What is decided from is what was settled before: a look that writes decides, too."""
    submit_with_smoke(world.store, train_job(), "main")
    images = SampleJob(kind="sample", name="images", model=ModelRef(job="gone"), num_samples=1)
    submit_job(world.store, images, "images")
    world.controller.take_over()
    before = dict(world.store.objects)
    assert world.controller.snapshot(world.cluster.nodes()).queue == []
    assert world.store.objects == before
    world.step()
    assert world.state("images") == "FAILED"  # there is no such job: settled, in its own step
    assert world.record("main").reason == "WAITING_FOR_SMOKE"
    before = dict(world.store.objects)
    queue = world.controller.snapshot(world.cluster.nodes()).queue
    assert [(job.job_id, job.waits_for) for job in queue] == [("main", "its smoke test main-smoke")]
    assert world.store.objects == before


def test_one_class_begins_and_preempts_attempts(world: World) -> None:
    """Whoever follows an attempt also began it, so that one place says what an attempt is."""
    submit_job(world.store, train_job(), "a")
    control = AttemptControl(world.store, world.cluster, world.records)
    nodes = world.cluster.nodes()
    current = control.start(world.records.read("a"), train_job(), {"n1": 1}, nodes)
    assert current.record == world.record("a")
    assert current.record.state == "STARTING"
    assert list(world.cluster.started) == ["a.1"]
    current = control.preempt(current, "b")
    assert (world.state("a"), current.record.reason) == ("STOPPING", "PREEMPTED")
