"""Resolved checkpoints for tests."""

from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.store.keys import JobPaths


def model_of(
    job_id: str, step: int = 10, *, commit_sha256: str = "c", store_uri: str = ""
) -> ResolvedModel:
    """Return the checkpoint of a training at a step."""
    return ResolvedModel(
        store_uri=store_uri,
        job_id=job_id,
        step=step,
        commit_key=JobPaths(job_id).checkpoint(step),
        commit_sha256=commit_sha256,
    )
