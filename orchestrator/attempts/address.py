"""Which attempt a process works for, in a module that loads nothing."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AttemptAddress:
    """Where an attempt is found; it travels to each process of it, and the store holds the rest.

    Attributes:
        store_uri: The store.
        job_id: The job.
        attempt: The attempt's number.
    """

    store_uri: str
    job_id: str
    attempt: int
