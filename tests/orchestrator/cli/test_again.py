"""`resubmit` and `diff`: jobs like those that there are."""

from pathlib import Path

import pytest

from orchestrator.cli import again
from orchestrator.cli.again import diff_command, resubmit_command
from orchestrator.client.prepare import prepared
from orchestrator.client.submit import submit_job
from orchestrator.errors import BadInputError
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_submitted
from orchestrator.specs.again import job_file_again
from orchestrator.specs.files import load_job_file
from orchestrator.specs.group import GroupJob
from orchestrator.specs.train import TrainJob
from tests.support.fakes import MemoryStore
from tests.support.verbs import Verbs

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """A store with a training and a sweep of jobs/; the orchestrator is left out of it."""
    monkeypatch.setattr(again, "ensure_running", lambda _around, _say: False)
    store = MemoryStore()
    for job_id in ("train", "sweep"):
        file = load_job_file(ROOT / f"jobs/{job_id}.yaml")
        submit(store, file, job_id)
    return store


def submit(store: MemoryStore, file: object, job_id: str) -> None:
    """Put a job file's job."""
    ready = prepared(file, ROOT / "jobs", store)  # type: ignore[arg-type]
    submit_job(store, ready.spec, job_id, ready.asked)


def test_a_job_again_differs_in_what_was_set_alone(
    monkeypatch: pytest.MonkeyPatch, store: MemoryStore
) -> None:
    """The experiment of every day: the same once more, with another learning rate."""
    verbs = Verbs(monkeypatch, store)
    done = verbs(
        resubmit_command, ["train", "--set", "training.learning_rate=3e-4", "--id", "train-2"]
    )
    assert "train-2 queued, like train" in done.out
    told = verbs(diff_command, ["train", "train-2", "-o", "json"]).value
    assert told["settings"] == {"training.learning_rate": [0.001, 0.0003]}
    assert "learning_rate  0.001 -> 0.0003" in verbs(diff_command, ["train", "train-2"]).out
    assert "the same settings" in verbs(diff_command, ["train", "train"]).out


def test_a_plan_of_a_job_again_queues_nothing(
    monkeypatch: pytest.MonkeyPatch, store: MemoryStore
) -> None:
    """As `submit --dry-run`."""
    keys = set(store.objects)
    done = Verbs(monkeypatch, store)(resubmit_command, ["train", "--dry-run", "-o", "json"])
    assert done.value["kind"] == "train"
    assert {key for key in set(store.objects) - keys if "/jobs/" in f"/{key}"} == set()


def test_a_sweep_again_is_varied_anew(store: MemoryStore) -> None:
    """Its file is kept, so its matrix may change."""
    request = read_submitted(RecordStore(store), "sweep")
    file = job_file_again(request, "sweep", ["matrix={training.seed: [7, 8, 9]}"])
    assert isinstance(file.spec, GroupJob)
    assert [c.settings for c in file.spec.children] == [{"training.seed": n} for n in (7, 8, 9)]
    specs = [c.spec for c in file.spec.children]
    pinned = {spec.dataset.sha256 for spec in specs if isinstance(spec, TrainJob)}
    assert pinned == {request.spec.children[0].spec.dataset.sha256}  # type: ignore[union-attr]


def test_other_images_are_not_held_to_the_old_hash(store: MemoryStore) -> None:
    """The pin of a source belongs to that source."""
    request = read_submitted(RecordStore(store), "train")
    assert job_file_again(request, "train", []).spec.dataset.sha256  # type: ignore[union-attr]
    file = job_file_again(request, "train", ["dataset.source=./other"])
    assert file.spec.dataset.sha256 is None  # type: ignore[union-attr]


def test_a_wrong_setting_names_the_option(store: MemoryStore) -> None:
    """There is no file with lines to point at."""
    request = read_submitted(RecordStore(store), "train")
    with pytest.raises(BadInputError, match="learning_rat"):
        job_file_again(request, "train", ["training.learning_rat=1"])
