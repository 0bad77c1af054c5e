"""`init` writes job files that run."""

from pathlib import Path

import pytest

from orchestrator.cli.init import init_command, job_text
from orchestrator.errors import BadInputError
from orchestrator.specs.files import load_job_file
from orchestrator.specs.train import TrainJob
from tests.support.fakes import MemoryStore
from tests.support.verbs import Verbs


@pytest.mark.parametrize("size", ["small", "medium", "large"])
@pytest.mark.parametrize("machine", ["auto", "cpu", "gpu"])
def test_every_answer_gives_a_file_that_is_right(tmp_path: Path, size: str, machine: str) -> None:
    """A newcomer's first file must not be refused, nor warned of."""
    file = tmp_path / "My Faces!.yaml"
    file.write_text(job_text(file, "it's # here", size, machine))
    job_file = load_job_file(file)
    assert isinstance(job_file.spec, TrainJob)
    assert job_file.spec.name == "my-faces"
    assert job_file.spec.dataset.source == "it's # here"
    assert job_file.warnings == ()


def test_questions_are_asked_for_what_was_not_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Enter takes what is proposed; options make it a verb for programs."""
    verbs = Verbs(monkeypatch, MemoryStore())
    monkeypatch.chdir(tmp_path)
    done = verbs(init_command, [], typed="\nsmall\n\n")
    assert "days on a GPU" in done.err
    assert "ddpmctl submit job.yaml" in done.out
    asked = (tmp_path / "job.yaml").read_text()
    given = ["j2.yaml", "--data", "digits", "--size", "small", "--machine", "auto", "-o", "json"]
    assert verbs(init_command, given).value == {"path": "j2.yaml"}
    assert asked.split("\n", 3)[3] == (tmp_path / "j2.yaml").read_text().split("\n", 3)[3].replace(
        "name: j2", "name: job"
    )


def test_a_file_that_is_there_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Somebody wrote it."""
    verbs = Verbs(monkeypatch, MemoryStore())
    (tmp_path / "a.yaml").write_text("mine")
    given = [str(tmp_path / "a.yaml"), "--data", "digits", "--size", "small", "--machine", "cpu"]
    with pytest.raises(BadInputError, match="--overwrite"):
        verbs(init_command, given)
    assert (tmp_path / "a.yaml").read_text() == "mine"
    verbs(init_command, [*given, "--overwrite"])
    assert "kind: train" in (tmp_path / "a.yaml").read_text()
