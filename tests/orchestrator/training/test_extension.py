"""`ddpmctl extend`: a training goes on where another one ended, to the bit."""

from pathlib import Path

import pytest

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.checkpoints.references import hold_model
from orchestrator.cli import again
from orchestrator.cli.again import extend_command
from orchestrator.client.describe import describe_job
from orchestrator.client.references import references_to
from orchestrator.client.status import job_status
from orchestrator.errors import BadInputError
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobState
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore
from tests.support.trainings import (
    TRAIN,
    begun,
    end,
    submit_training,
    train_to_the_end,
    weights_of,
    work,
)
from tests.support.verbs import Said, Verbs


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """An empty store; the orchestrator is left out of it."""
    monkeypatch.setattr(again, "ensure_running", lambda _around, _say: False)
    return MemoryStore()


@pytest.fixture(scope="module")
def after_training(tmp_path_factory: pytest.TempPathFactory) -> MemoryStore:
    """A store after the training `t`, for all tests to copy."""
    store = MemoryStore()
    submit_training(tmp_path_factory.mktemp("trained"), store, "t", TRAIN)
    train_to_the_end(store, "t")
    return store


@pytest.fixture
def trained(after_training: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """A store with `t`, which has ended after 4 steps; the orchestrator is left out of it."""
    monkeypatch.setattr(again, "ensure_running", lambda _around, _say: False)
    return after_training.copy()


def extend(patch: pytest.MonkeyPatch, store: MemoryStore, *arguments: str) -> Said:
    """Call the verb."""
    return Verbs(patch, store)(extend_command, arguments)


@pytest.mark.slow
def test_an_extended_training_has_the_bits_of_one_that_ran_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: MemoryStore
) -> None:
    """4 steps and then 3 are 7: weights, averages and moments; so is an extension of an extension.

    The second leg begins between two checkpoints of the long run, so its cursor counts as well.
    """
    submit_training(tmp_path, trained, "whole", TRAIN, "training.num_steps=7")
    train_to_the_end(trained, "whole")
    told = extend(monkeypatch, trained, "t", "--num-steps", "5", "--id", "t5").out
    assert told == "t5 queued, goes on from t, to 5 steps\n"
    train_to_the_end(trained, "t5")
    extend(monkeypatch, trained, "t5", "--num-steps", "7", "--id", "t7")
    train_to_the_end(trained, "t7")
    assert weights_of(trained, "t7", 7) == weights_of(trained, "whole", 7)
    assert weights_of(trained, "t7", 7) != weights_of(trained, "t5", 5)
    messages = [event.message for event in RecordStore(trained).events("t7")]
    assert "goes on from step 5 of t5" in messages


def test_an_interrupted_extension_goes_on_from_its_own_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: MemoryStore
) -> None:
    """What it began with is the beginning of its first attempt alone."""
    extend(monkeypatch, trained, "t", "--num-steps", "7", "--id", "t7")
    work(begun(trained, "t7"))
    trained.delete(JobPaths("t7").checkpoint(7))  # as if it had been lost before its end
    end(trained, "t7", JobState.QUEUED)
    train_to_the_end(trained, "t7")
    assert "goes on from step 6" in [e.message for e in RecordStore(trained).events("t7")]
    assert CheckpointStore(trained, JobPaths("t7")).steps() == [6, 7]


def test_the_line_of_descent_is_shown_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: MemoryStore
) -> None:
    """Who has the youngest model can still tell, and has, what it came from."""
    for old, new, steps in (("t", "t5", 5), ("t5", "t7", 7)):
        extend(monkeypatch, trained, old, "--num-steps", str(steps), "--id", new)
        train_to_the_end(trained, new)
    text = describe_job(job_status(trained, "t7"))
    assert "model     goes on from step 5 of t5\n" in text
    assert "which began with step 4 of t\n" in f"{text}\n"
    model = RecordStore(trained).read("t5").record.model
    assert model is not None
    assert hold_model(trained, model, "t5")
    checkpoints = CheckpointStore(trained, JobPaths("t"))
    checkpoints.retain(0)
    assert checkpoints.steps() == [4]
    assert references_to(trained, ["t"], versions=lambda _job: []) == ["the training t5"]


REFUSED = [
    ("training.lr_schedule=cosine", "7", "training.lr_schedule cosine depends on num_steps"),
    ("training.seed=0", "4", "training.num_steps must be above 4, which are taken, not 4"),
]


@pytest.mark.parametrize(("setting", "steps", "told"), REFUSED)
def test_what_would_be_another_run_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    store: MemoryStore,
    setting: str,
    steps: str,
    told: str,
) -> None:
    """The promise is the bits of one long run, or a reason."""
    submit_training(tmp_path, store, "t", TRAIN, setting)
    train_to_the_end(store, "t")
    with pytest.raises(BadInputError, match="t cannot be extended") as caught:
        extend(monkeypatch, store, "t", "--num-steps", steps)
    assert told in str(caught.value)
    assert RecordStore(store).queued_ids() == ["t"]


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (None, "t is STARTING; extend it when it has SUCCEEDED"),
        (JobState.CANCELLED, "t is CANCELLED, before its last step; let it go on: ddpmctl retry t"),
    ],
)
def test_only_a_training_that_succeeded_is_extended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    store: MemoryStore,
    state: JobState | None,
    told: str,
) -> None:
    """The others have a verb of their own."""
    submit_training(tmp_path, store, "t", TRAIN)
    begun(store, "t")
    if state is not None:
        end(store, "t", state)
    with pytest.raises(BadInputError) as caught:
        extend(monkeypatch, store, "t", "--num-steps", "9")
    assert str(caught.value) == told


OTHERWISE = [
    ("training.learning_rate=1e-3", "training.learning_rate was 0.0002 and is 0.001"),
    ("dataset.holdout_fraction=0.5", "dataset.holdout_fraction was 0.25 and is 0.5"),
    ("model.dropout=0.5", "model.dropout was 0.1 and is 0.5"),
]


@pytest.mark.parametrize(("setting", "told"), OTHERWISE)
def test_a_job_file_that_goes_on_with_other_settings_is_refused_with_its_line(
    tmp_path: Path, trained: MemoryStore, setting: str, told: str
) -> None:
    """`weights: all` in a file is held to the same as the verb; `ema` is the way to change them."""
    text = TRAIN.replace("name: t\n", "name: u\ninit: {job: t, weights: all}\n")
    with pytest.raises(BadInputError, match="init: cannot go on from t") as caught:
        submit_training(tmp_path, trained, "u", text, "training.num_steps=9", setting)
    assert f"--set '{setting}'" in str(caught.value)
    assert told in str(caught.value)
    submit_training(tmp_path, trained, "u", text, "training.num_steps=9")
    train_to_the_end(trained, "u")


def test_all_of_a_model_needs_the_job_that_made_it(tmp_path: Path, store: MemoryStore) -> None:
    """A bare checkpoint does not say on which images it was trained; a sample job has no use."""
    text = TRAIN.replace("name: t\n", "name: u\ninit: {registered: t@a, weights: all}\n")
    with pytest.raises(BadInputError, match=r"u\.yaml:3: .*weights: all needs job"):
        submit_training(tmp_path, store, "u", text)
