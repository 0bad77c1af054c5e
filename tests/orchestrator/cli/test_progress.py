"""What somebody sees who waits for a job."""

from pathlib import Path
from types import ModuleType

import pytest

from orchestrator.cli import again, changes, jobs, submit
from orchestrator.cli.jobs import watch
from orchestrator.cli.output import Output
from orchestrator.cli.progress import ProgressView
from orchestrator.client.prepare import prepared
from orchestrator.client.status import JobStatus
from orchestrator.client.submit import submit_job
from orchestrator.specs.files import load_job_file
from tests.support.fakes import MemoryStore
from tests.support.verbs import Verbs
from tests.support.world import train_job

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("silent", [False, True])
def test_who_stops_waiting_is_told_that_the_job_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], silent: bool
) -> None:
    """Elsewhere Ctrl-C ends what is watched; a program that reads JSON is told nothing."""
    store = MemoryStore()
    submit_job(store, train_job(), "a")

    def stop(_view: ProgressView, status: JobStatus) -> None:
        assert status.job_id == "a"
        raise KeyboardInterrupt

    monkeypatch.setattr(ProgressView, "show", stop)
    with pytest.raises(KeyboardInterrupt):
        watch(Output(silent), store, "a")
    assert ("a goes on: ddpmctl wait a" in capsys.readouterr().err) is not silent


@pytest.mark.parametrize(
    ("module", "verb", "words", "told"),
    [
        (submit, "submit", [f"{ROOT}/jobs/train.yaml", "--id", "x"], "queued: x"),
        (again, "resubmit", ["a", "--set", "training.seed=7", "--id", "x"], "queued: x"),
        (jobs, "wait", ["a"], "a goes on: ddpmctl wait a"),
        (changes, "cancel", ["a"], "asked to cancel a, which goes on without you"),
    ],
)
def test_ctrl_c_while_the_orchestrator_starts_says_what_holds(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, verb: str, words: list[str], told: str
) -> None:
    """What was put into the store is done without the verb; nobody should do it twice."""
    store = MemoryStore()
    file = load_job_file(ROOT / "jobs/train.yaml")
    ready = prepared(file, ROOT / "jobs", store)
    submit_job(store, ready.spec, "a", ready.asked)

    def stop(_around: object, _say: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "ensure_running", stop)
    done = Verbs(monkeypatch, store)(getattr(module, f"{verb}_command"), words)
    assert told in done.err
    assert done.exit_code != 0
