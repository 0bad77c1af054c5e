"""The checkpoint that a job reads, once it is resolved."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ResolvedModel:
    """One checkpoint.

    Attributes:
        store_uri: The store that it lies in; "" for the job's own.
        job_id: The training job that made it.
        step: Its training steps.
        commit_key: Key of its commit.
        commit_sha256: Hash over the names, sizes and hashes of its files.
        weights: The file of the weights, without its ending; `all` goes on with the training.
    """

    store_uri: str = ""
    job_id: str
    step: int
    commit_key: str
    commit_sha256: str
    weights: str = "ema"
