"""What `top` shows at any width, what its keys do, and that it ends."""

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest

from orchestrator.cli.board import Board, frame
from orchestrator.cli.screen import key_name, keys_of
from orchestrator.cli.top import top_command
from orchestrator.client.overview import Overview, read_overview
from orchestrator.client.status import ListedJob
from orchestrator.client.submit import submit_job
from orchestrator.jobs.nodes import NodeEntry
from orchestrator.lifecycle.state import JobState
from tests.support.fakes import MemoryStore
from tests.support.verbs import Verbs
from tests.support.world import World, train_job

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NODE = NodeEntry(node_id="a1b2c3d4e5", cpus=8, gpus=1, free_cpus=5, workers={"job-00": 2})


def overview(num_jobs: int = 3, **changes: Any) -> Overview:
    """Return what there is: jobs of all states in turn on one node."""
    states = list(JobState)
    jobs = tuple(
        ListedJob(
            job_id=f"job-{number:02d}",
            kind="train",
            name="job",
            state=states[number % len(states)],
            submitted_at=NOW - timedelta(hours=1),
            changed_at=NOW,
            confirmed_at=NOW,
            done=number,
            total=100,
            unit="steps",
        )
        for number in range(num_jobs)
    )
    values = {"at": NOW, "is_acting": True, "acted_at": NOW, "nodes": (NODE,)}
    return Overview(**{**values, "quotas": {}, "jobs": jobs, **changes})


def shown(*args: Any, **kwargs: Any) -> list[str]:
    """Return a frame without colours."""
    return [click.unstyle(line) for line in frame(*args, **kwargs)]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("height", [6, 24])
@pytest.mark.parametrize("num_jobs", [0, 3, 50])
def test_a_frame_fits_the_terminal(width: int, height: int, num_jobs: int) -> None:
    """One line too many scrolls all of them away."""
    lines = shown(overview(num_jobs), Board(), (width, height))
    assert len(lines) <= height
    assert max(len(line) for line in lines) <= width


def test_a_frame_tells_who_acts_what_is_held_and_what_each_job_does() -> None:
    """The question is always: does it move, and why not."""
    text = "\n".join(shown(overview(), Board(), (120, 24)))
    for told in ("orchestrator acts", "3 of 8 CPUs held, 1 of 1 GPU", "job-00 x2", "2/100 steps"):
        assert told in text, told
    narrow = "\n".join(shown(overview(), Board(), (60, 24)))
    assert "2/100 steps" in narrow
    silent = overview(is_acting=False, acted_at=NOW - timedelta(minutes=5))
    assert "NO orchestrator for 5m00s" in shown(silent, Board(), (120, 24))[0]
    assert "ever ran" in shown(overview(is_acting=False, acted_at=None), Board(), (120, 24))[0]
    assert "old: gone" in shown(overview(), Board(), (120, 24), trouble="gone")[2]


def test_the_cursor_moves_and_stays_on_its_job() -> None:
    """Jobs come and go above it; the one that is looked at must not jump."""
    there = overview(50)
    board = Board()
    for key in ("down", "down", "page-down", "up"):
        board = board.pressed(key, there)
    assert board.selected == "job-11"
    assert any(line.startswith(">  job-11") for line in shown(there, board, (80, 12)))
    assert board.pressed("page-up", there).pressed("page-up", there).selected == "job-00"
    later = overview(50, jobs=there.jobs[5:])
    assert board.job(later) is there.jobs[11]
    assert board.pressed("down", overview(0)).job(overview(0)) is None


def test_keys_look_into_a_job_and_back_and_end() -> None:
    """Escape leaves the job, and only q leaves the program."""
    there = overview(10)
    inside = Board().pressed("down", there).pressed("enter", there)
    assert inside.is_open
    assert "word of it" in shown(there, inside, (80, 24), inside=["word of it"])
    back = inside.pressed("back", there)
    assert not back.is_open
    assert not back.pressed("back", there).has_quit
    assert back.pressed("q", there).has_quit
    assert all(not job.state.has_ended for job in back.pressed("a", there).jobs(there))


def test_keys_have_names_whatever_the_terminal_sends() -> None:
    """An arrow is three bytes, and of two kinds."""
    names = {b"\x1b[A": "up", b"\x1bOB": "down", b"\r": "enter", b"\x1b": "back", b"q": "q"}
    assert {pressed: key_name(pressed) for pressed in names} == names
    assert key_name(b"\xff") == key_name(b"\x01") == ""


def test_keys_that_come_together_count_each() -> None:
    """Whoever holds j down, or types ahead while a look takes a second, stayed where they were."""
    assert keys_of(b"jjk\x1b[Bq") == ["down", "down", "up", "down", "q"]
    assert keys_of(b"j\x1b") == ["down", "back"]
    assert keys_of(b"\x1b[1;5A\xc3\xa4\xffj") == ["", "ä", "", "down"]
    assert keys_of(b"") == []


def test_without_a_terminal_top_looks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script, a pipe and a cron job get one look, from the store alone."""
    world = World()
    submit_job(world.store, train_job(workers=64), "a-1")
    world.step(2)
    verbs = Verbs(monkeypatch, world.store)
    done = verbs(top_command, [])
    assert "a-1" in done.out
    assert "1 waiting" in done.out
    assert "\x1b" not in done.out
    value = verbs(top_command, ["-o", "json"]).value
    assert [job["job_id"] for job in value["jobs"]] == ["a-1"]
    assert value["nodes"]


def test_a_store_where_nothing_ever_ran_has_an_overview() -> None:
    """It is what a new user sees first."""
    found = read_overview(MemoryStore())
    assert (found.jobs, found.nodes, found.is_acting, found.acted_at) == ((), (), False, None)
