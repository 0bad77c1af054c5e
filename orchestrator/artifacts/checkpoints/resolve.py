"""Which checkpoint a sample job draws from, resolved once, and how a worker gets hold of it."""

import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.checkpoints.commit import CheckpointCommit, decode_commit
from orchestrator.artifacts.checkpoints.download import LocalCheckpoint
from orchestrator.cluster.cache import cache_folder
from orchestrator.cluster.code_version import source_files
from orchestrator.errors import (
    BadInputError,
    CheckpointError,
    ObjectNotFoundError,
    StoreRefusedError,
)
from orchestrator.jobs.lookup import exact_job_id
from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.specs.sections import ModelRef
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_store

logger = logging.getLogger(__name__)

_COMMIT_KEY = re.compile(r"jobs/([a-z0-9-]+)/checkpoints/step-(\d+)\.json")

Registry = Callable[[str], str]
"""Takes `name@alias` or `name/version`; returns the s3:// URI of the checkpoint's commit."""


def resolve_model(
    store: ObjectStore, ref: ModelRef, registry: Registry | None = None
) -> ResolvedModel:
    """Find the checkpoint that a job file means, and prove that it is whole.

    Args:
        store: Where the jobs are.
        ref: What the job file says.
        registry: Looks registered models up; None where there is none.

    Raises:
        JobNotFoundError: There is no such training job.
        CheckpointError: It has no whole checkpoint (yet).
        BadInputError: The reference itself cannot be used.
    """
    if ref.job is not None:
        found = _of_job(store, exact_job_id(store, ref.job), ref.step)
        return _described("", found[0], found[1], ref)
    uri = ref.checkpoint
    if uri is None:
        if registry is None:
            raise BadInputError(f"model.registered: {ref.registered} needs MLFLOW_TRACKING_URI")
        uri = registry(str(ref.registered))
    return _of_uri(store, uri, ref)


def checkpoint_cache() -> Path:
    """Return the folder of this machine's copies of checkpoints; the hash is checked once."""
    return cache_folder("checkpoints")


def fetch_model(store: ObjectStore, model: ResolvedModel) -> LocalCheckpoint:
    """Return a checkpoint's files, downloaded and verified once per machine.

    Raises:
        CheckpointError: It is gone, damaged, or not the one that was resolved.
    """
    source = store if not model.store_uri else open_store(model.store_uri)
    try:
        commit = decode_commit(source.get(model.commit_key))
    except ObjectNotFoundError as error:
        raise CheckpointError(f"the model's checkpoint {model.commit_key} is gone") from error
    if commit.sha256 != model.commit_sha256:
        raise CheckpointError(f"{model.commit_key} is not the checkpoint that was resolved")
    return CheckpointStore(source, JobPaths(model.job_id)).fetch(commit, checkpoint_cache())


def code_sha256(folder: Path) -> str:
    """Return a hash over the sources below a folder: what fixes the mathematics' bits."""
    digest = hashlib.sha256()
    for path in source_files(folder):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _of_job(store: ObjectStore, job_id: str, step: int | None) -> tuple[str, CheckpointCommit]:
    checkpoints = CheckpointStore(store, JobPaths(job_id))
    if step is not None:
        commit = checkpoints.find(step)
        if commit is None:
            there = ", ".join(map(str, checkpoints.steps())) or "none"
            raise CheckpointError(f"job {job_id} has no checkpoint at step {step}; it has: {there}")
        checkpoints.fetch(commit, checkpoint_cache())
        return job_id, commit
    newest = checkpoints.newest_whole(checkpoint_cache(), _log_skipped)
    if newest is None:
        raise CheckpointError(f"job {job_id} has no whole checkpoint to draw from")
    return job_id, newest.commit


def _of_uri(store: ObjectStore, uri: str, ref: ModelRef) -> ResolvedModel:
    prefix, _, rest = uri.rpartition("/jobs/")
    match = _COMMIT_KEY.fullmatch(f"jobs/{rest}")
    if match is None or not prefix:
        raise BadInputError(
            f"model.checkpoint {uri!r} must be the s3:// URI of a checkpoint's commit: "
            "s3://bucket/prefix/jobs/<id>/checkpoints/step-<number>.json"
        )
    own = prefix == store.uri
    if own:
        job_id, commit = _of_job(store, match[1], int(match[2]))
    else:
        try:
            job_id, commit = _of_job(open_store(prefix), match[1], int(match[2]))
        except StoreRefusedError as error:
            raise BadInputError(f"model.checkpoint {uri}: {error}") from error
    return _described("" if own else prefix, job_id, commit, ref)


def _described(uri: str, job_id: str, commit: CheckpointCommit, ref: ModelRef) -> ResolvedModel:
    averages = sorted(Path(f.name).stem for f in commit.files if f.name.startswith("ema"))
    if ref.weights.startswith("ema-") and ref.weights not in averages:
        there = ", ".join([*averages, "model"])
        raise BadInputError(
            f"step {commit.step} of job {job_id} has no weights {ref.weights}; it has: {there}"
        )
    return ResolvedModel(
        store_uri=uri,
        job_id=job_id,
        step=commit.step,
        commit_key=JobPaths(job_id).checkpoint(commit.step),
        commit_sha256=commit.sha256,
        weights=ref.weights,
    )


def _log_skipped(step: int, problem: str) -> None:
    logger.warning("step=%d: the checkpoint is passed over: %s", step, problem)
