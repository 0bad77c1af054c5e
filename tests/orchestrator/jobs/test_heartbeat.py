"""Heartbeats, outcomes and groups' progress, also as earlier versions wrote them."""

import json

from orchestrator.jobs.heartbeat import HEARTBEAT, OUTCOME, Heartbeat, WorkerReport
from orchestrator.jobs.index import read_index
from orchestrator.jobs.index_entry import index_entry, read_said
from orchestrator.jobs.progress import GROUP_PROGRESS, ChildEntry, GroupProgress
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import JobRecord, JobState, Reason
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore
from tests.support.records import record_of

# As the version before wrote them.
OLD_BEAT = {
    "at": "2026-11-27T10:00:00+00:00",
    "phase": "running",
    "done": 12.5,
    "total": 64,
    "unit": "images",
    "rate_per_s": 2.5,
    "committed": 8,
    "workers": [{"rank": 1, "node_id": "n", "pid": 7, "shard": 3, "step": 2, "num_steps": 50}],
    "details": {"num_workers": 1, "num_unplaced": 2, "num_shards": 8},
}
OLD_GROUP = {
    "done": 1,
    "total": 2,
    "unit": "steps",
    "children": [
        {"step": "a", "job_id": "g-a", "kind": "train", "settings": {}, "state": "SUCCEEDED",
         "message": "", "reason": None, "attempt": 1, "heartbeat_at": None, "phase": "running",
         "done": 10, "total": 10, "unit": "steps", "rate_per_s": 1.0},
        {"step": "b", "job_id": "g-b", "kind": "sample", "settings": {}, "state": None,
         "message": "waits for a"},
    ],
}  # fmt: skip
OLD_ENTRY = {
    "job_id": "a", "kind": "train", "name": "a", "queue": "default", "priority": 50,
    "state": "FAILED", "reason": "A_WORD_OF_LATER", "message": "m", "parent": None, "step": None,
    "position": None, "attempt": 1, "submitted_at": "2026-11-27T10:00:00+00:00",
    "changed_at": "2026-11-27T11:00:00+00:00", "heartbeat_at": None, "phase": "evaluating",
    "num_unplaced": 0, "done": 7, "committed": 5, "total": 10, "unit": "steps", "rate_per_s": 0.0,
}  # fmt: skip


def group(store: MemoryStore, attempt: int = 1) -> JobRecord:
    """Return the record of a group."""
    return record_of("g", at=store.now(), kind="pipeline", state=JobState.RUNNING, attempt=attempt)


def test_a_heartbeat_of_before_keeps_what_the_scheduler_needs() -> None:
    """A fleet that lacks workers is not lent from, also while versions change."""
    beat = HEARTBEAT.decode(json.dumps(OLD_BEAT).encode())
    assert (beat.phase, beat.num_unplaced, beat.done, beat.committed) == (Phase.RUNNING, 2, 12.5, 8)
    assert beat.workers == (
        WorkerReport(rank=1, node_id="n", pid=7, shard=3, step=2, num_steps=50),
    )


def test_what_older_versions_wrote_has_no_scores_and_is_read() -> None:
    """`list` and `status` meet heartbeats of before for as long as their jobs are kept."""
    assert HEARTBEAT.decode(json.dumps(OLD_BEAT).encode()).scores == {}
    assert GROUP_PROGRESS.decode(json.dumps(OLD_GROUP).encode()).children[0].scores == {}
    said = Heartbeat(scores={"loss": 0.25}, workers=(WorkerReport(scores={"loss": 0.25}),))
    assert HEARTBEAT.decode(HEARTBEAT.encode(said)) == said


def test_what_people_are_shown_decides_nothing() -> None:
    """Whoever tidies the display must not change the scheduler."""
    beat = Heartbeat(num_unplaced=1, details={"num_unplaced": 5})
    assert HEARTBEAT.decode(HEARTBEAT.encode(beat)).num_unplaced == 1


def test_a_phase_of_another_version_counts_as_work() -> None:
    """An attempt that says anything but that it starts has begun."""
    assert HEARTBEAT.decode(b'{"phase": "pondering"}').phase is Phase.RUNNING


def test_an_outcome_of_before_is_read() -> None:
    """It decides whether the job is done."""
    old = b'{"succeeded": true, "stopped": false, "reason": null, "message": "m", "progress": 9}'
    assert OUTCOME.decode(old) == Outcome(succeeded=True, message="m", progress=9)
    lost = Outcome(reason=Reason.NODE_LOST, failed_node_ids=("n",))
    assert OUTCOME.decode(OUTCOME.encode(lost)) == lost


def test_a_groups_progress_of_before_lies_below_an_attempt_and_is_read() -> None:
    """A group has no attempts: what stands there is from an earlier version."""
    store = MemoryStore()
    assert read_said(store, group(store)) is None
    store.put(JobPaths("g").attempt(1).heartbeat, json.dumps(OLD_GROUP).encode())
    found = read_said(store, group(store))
    assert isinstance(found, GroupProgress)
    assert [child.state for child in found.children] == [JobState.SUCCEEDED, None]
    newer = GroupProgress(done=2, total=2, children=(ChildEntry(step="a", job_id="x", kind="k"),))
    store.put(JobPaths("g").progress, GROUP_PROGRESS.encode(newer))
    assert read_said(store, group(store)) == newer
    assert index_entry(group(store), newer).done == 2


def test_an_index_of_before_is_read_whatever_word_it_has_for_a_reason() -> None:
    """`list` must show the jobs of a store that another version looks after."""
    store = MemoryStore()
    index = {"format_version": 1, "live": [], "ended": [OLD_ENTRY], "at": "2026-11-27T11:00:00Z"}
    store.put(keys.INDEX, json.dumps(index).encode())
    found = read_index(store)
    assert found is not None
    (entry,) = found.ended
    assert (entry.state, entry.reason, entry.done) == (JobState.FAILED, "A_WORD_OF_LATER", 7)
    assert entry.phase is Phase.EVALUATING
