"""Marks below a checkpoint: which jobs draw from it, so that retention keeps it."""

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore


def hold_model(store: ObjectStore, model: ResolvedModel, job_id: str) -> bool:
    """Have a found checkpoint kept for a job that draws from it; tell whether it is still there.

    One in another store is not ours to keep.
    """
    if model.store_uri:
        return True
    CheckpointStore(store, JobPaths(model.job_id)).refer(model.step, job_id)
    if store.exists(model.commit_key):
        return True
    let_go_of_model(store, model, job_id)
    return False


def let_go_of_model(store: ObjectStore, model: ResolvedModel | None, job_id: str) -> None:
    """Take back what `hold_model` did, once a job is deleted."""
    if model is not None and not model.store_uri:
        store.delete(JobPaths(model.job_id).reference(model.step, job_id))
