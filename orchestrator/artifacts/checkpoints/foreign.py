"""Models of other projects as checkpoints of the store, and checkpoints as folders for diffusers.

An imported model lies where checkpoints lie, below an id that no job has: whoever draws from a
checkpoint, evaluates it or starts from it takes it by its address.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ddpm.errors import CheckpointFormatError, ForeignModelError
from ddpm.exchange.folders import read_folder, write_checkpoint, write_folder
from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.checkpoints.commit import describe_file, hash_of_files
from orchestrator.artifacts.checkpoints.resolve import fetch_model, resolve_model
from orchestrator.errors import BadInputError, JobNotFoundError
from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.specs.sections import ModelRef
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from orchestrator.store.names import check_name
from orchestrator.store.objects import ObjectStore

IMPORTED = "imported-"
_HASH = 12


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """A model that was taken in.

    Attributes:
        name: Its id, which begins with `imported-`.
        checkpoint: s3:// URI of its commit: what job files name.
        step: Training steps that made it; 0 where nobody knows.
        size_bytes: Of its files.
    """

    name: str
    checkpoint: str
    step: int
    size_bytes: int


def export_folder(store: ObjectStore, ref: ModelRef, folder: Path) -> ResolvedModel:
    """Write a checkpoint of the store as a folder that diffusers loads.

    Raises:
        BadInputError: The folder holds something already, or diffusers has no such model.
        CheckpointError, JobNotFoundError: There is no such checkpoint.
    """
    model = resolve_model(store, ref)
    local = fetch_model(store, model)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise BadInputError(f"{folder} holds something already; name another --output")
        origin = f"{model.job_id}, step {model.step}"
        write_folder(local.folder, folder, weights=model.weights, origin=origin)
    except ForeignModelError as error:
        raise BadInputError(f"{model.job_id} cannot go out to diffusers: {error}") from error
    except CheckpointFormatError as error:
        raise BadInputError(f"{model.job_id}: {error.problem}") from error
    except OSError as error:
        raise BadInputError(f"cannot write {folder}: {error.strerror}") from error
    return model


def import_folder(
    store: ObjectStore, folder: Path, *, name: str | None = None, last_class_is_none: bool = False
) -> ImportedModel:
    """Take a folder of diffusers' into the store; the same folder again is the same model.

    Args:
        store: Where to.
        folder: As `save_pretrained` of a pipeline lays it out.
        name: What it is called there, after `imported-`; None for the beginning of its hash.
        last_class_is_none: The last row of its class embedding stands for no class.

    Raises:
        BadInputError: It is no such folder, or what it holds has no counterpart here.
    """
    if not folder.is_dir():
        raise BadInputError(f"{folder} is no folder; a model of diffusers is one")
    try:
        found, network = read_folder(folder, last_class_is_none=last_class_is_none)
    except ForeignModelError as error:
        raise BadInputError(f"{folder}: {error}") from error
    with tempfile.TemporaryDirectory(prefix="ddpmctl-import-") as whole:
        files = write_checkpoint(found, network, Path(whole), origin={"format": "diffusers"})
        digest = hash_of_files([describe_file(path) for path in sorted(files)])
        job_id = check_name("name", f"{IMPORTED}{name or digest[:_HASH]}")
        if store.exists(JobPaths(job_id).spec):
            raise BadInputError(f"{job_id} is a job; choose another --name")
        checkpoints = CheckpointStore(store, JobPaths(job_id))
        commit = checkpoints.commit(found.step, Path(whole), 1, {"imported": str(folder)})
    if commit.sha256 != digest:
        raise BadInputError(f"{job_id} is another model already; choose another --name")
    return _described(store, job_id, commit.step, commit.size_bytes)


def imported_models(store: ObjectStore) -> Iterator[ImportedModel]:
    """Yield the models that were taken in, by name."""
    for job_id in sorted(store.list_folders(f"{keys.JOBS}{IMPORTED}")):
        if store.exists(JobPaths(job_id).spec):
            continue
        for commit in CheckpointStore(store, JobPaths(job_id)).listing():
            yield _described(store, job_id, commit.step, commit.size_bytes)


def drop_imported(store: ObjectStore, name: str) -> None:
    """Remove a model that was taken in and that no job needs.

    Raises:
        JobNotFoundError: There is none of that name.
        BadInputError: Jobs need it; the message names them.
    """
    paths = JobPaths(check_name("name", name))
    if not name.startswith(IMPORTED) or store.exists(paths.spec):
        raise BadInputError(f"{name} is no imported model: their names begin with {IMPORTED}")
    objects = list(store.list_objects(paths.folder))
    if not objects:
        raise JobNotFoundError(name)
    held = len(paths.references)
    users = [o.key[held:].split("-", 2)[2] for o in objects if o.key.startswith(paths.references)]
    if users:
        raise BadInputError(f"{name} is needed by {', '.join(users)}; delete these jobs first")
    # The commit first: what is half removed is absent, not damaged.
    for one in sorted(objects, key=lambda o: not o.key.startswith(paths.checkpoints)):
        store.delete(one.key)


def _described(store: ObjectStore, job_id: str, step: int, size_bytes: int) -> ImportedModel:
    uri = f"{store.uri}/{JobPaths(job_id).checkpoint(step)}"
    return ImportedModel(name=job_id, checkpoint=uri, step=step, size_bytes=size_bytes)
