"""`models` takes diffusers' folders in and writes them."""

from pathlib import Path

import pytest

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.cli.models import models_command
from orchestrator.client.submit import submit_job
from orchestrator.errors import BadInputError
from orchestrator.store.keys import JobPaths
from tests.orchestrator.controller.test_smoke_gate import spec
from tests.support.fakes import MemoryStore
from tests.support.foreign_models import write_small_checkpoint
from tests.support.verbs import Verbs


def test_a_training_goes_out_and_comes_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user types: the last line of `import` is what a job file takes."""
    store = MemoryStore()
    call = Verbs(monkeypatch, store)
    submit_job(store, spec(), "digits")
    write_small_checkpoint(tmp_path / "own")
    CheckpointStore(store, JobPaths("digits")).commit(7, tmp_path / "own", 1, {})
    out = tmp_path / "out"
    said = call(models_command, ["export", "digits", "--format", "diffusers", "--output", str(out)])
    assert said.out.startswith("step 7 of digits: ")
    assert "DDPMPipeline.from_pretrained" in (out / "README.md").read_text()
    taken = call(models_command, ["import", str(out), "--name", "mine", "-o", "json"]).value
    assert taken["name"] == "imported-mine"
    assert taken["checkpoint"] in call(models_command, ["list"]).out
    assert call(models_command, ["delete", "imported-mine"]).exit_code == 0
    assert call(models_command, ["list"]).out.strip() == "no imported models"
    with pytest.raises(BadInputError, match="no folder"):
        call(models_command, ["import", str(tmp_path / "gone")])
