"""`submit` of several files, and from standard input."""

from pathlib import Path

import pytest

from orchestrator.cli import submit
from orchestrator.cli.submit import submit_command
from orchestrator.errors import BadInputError
from orchestrator.jobs.records import RecordStore
from tests.support.fakes import MemoryStore
from tests.support.verbs import Verbs

ROOT = Path(__file__).resolve().parents[3]
TRAIN, SAMPLE = (str(ROOT / f"jobs/{name}.yaml") for name in ("train", "sample"))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """An empty store; the orchestrator is left out of it."""
    monkeypatch.setattr(submit, "ensure_running", lambda _around, _say: False)
    return MemoryStore()


def test_a_later_file_may_draw_from_what_an_earlier_one_trains(
    monkeypatch: pytest.MonkeyPatch, store: MemoryStore
) -> None:
    """One call queues both; the results are a list in the order of the files."""
    done = Verbs(monkeypatch, store)(submit_command, [TRAIN, SAMPLE, "-o", "json"])
    assert [job["kind"] for job in done.value] == ["train", "sample"]
    assert len(RecordStore(store).queued_ids()) == 2
    with pytest.raises(BadInputError, match="digits"):
        Verbs(monkeypatch, MemoryStore())(submit_command, [SAMPLE])


def test_one_wrong_file_queues_none(
    monkeypatch: pytest.MonkeyPatch, store: MemoryStore, tmp_path: Path
) -> None:
    """Half of what was asked for would have to be found and cancelled."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("kind: train\nname: x\nlearning_rate: 1\n")
    verbs = Verbs(monkeypatch, store)
    with pytest.raises(BadInputError, match=r"wrong\.yaml:3"):
        verbs(submit_command, [TRAIN, str(wrong)])
    assert RecordStore(store).queued_ids() == []
    assert verbs(submit_command, [TRAIN, SAMPLE, "--id", "a"]).exit_code == 2


def test_a_file_may_come_from_a_pipe(monkeypatch: pytest.MonkeyPatch, store: MemoryStore) -> None:
    """Templates and `sed` need no file of their own; a mistake names the line all the same."""
    verbs = Verbs(monkeypatch, store)
    text = Path(TRAIN).read_text("utf-8")
    assert "job-1 queued" in verbs(submit_command, ["-", "--id", "job-1"], typed=text).out
    with pytest.raises(BadInputError, match=r"^standard input:"):
        verbs(submit_command, ["-"], typed=text.replace("num_steps", "num_stepps"))
