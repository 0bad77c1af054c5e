"""Takes the diffusers folder that a job file names into the store when the job is submitted."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.errors import BadInputError
from orchestrator.specs.job import Job
from orchestrator.store.objects import ObjectStore


def _silent(line: str) -> None:
    pass


def with_foreign_model(
    spec: Job, folder: Path, store: ObjectStore, say: Callable[[str], None] = _silent
) -> Job:
    """Return a job whose model, given as a folder of diffusers', is a checkpoint of the store.

    Args:
        spec: What was asked.
        folder: Folder of the job file, which relative paths start from.
        store: Where the model goes.
        say: Told in one line what was taken in.

    Raises:
        BadInputError: The folder holds no model that can be taken.
    """
    ref = spec.model_input
    if ref is None or ref.diffusers is None:
        return spec
    path = (folder / Path(ref.diffusers).expanduser()).resolve()
    # Loaded here: torch takes longer than all else that `submit` does.
    foreign: Any = importlib.import_module("orchestrator.artifacts.checkpoints.foreign")
    found = foreign.import_folder(store, path)
    if ref.checkpoint not in (None, found.checkpoint):
        raise BadInputError(
            f"the file pins {ref.checkpoint}, but {path} is {found.checkpoint}; bring that model "
            "back, or take the line out"
        )
    if ref.checkpoint is None:
        say(f"{path} is {found.name}")
    pinned = ref.model_copy(update={"diffusers": str(path), "checkpoint": found.checkpoint})
    return spec.model_copy(update={spec.model_field: pinned})
