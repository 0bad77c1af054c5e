"""Finds the job that a user means by an id or a name."""

from datetime import UTC

from orchestrator.errors import JobNotFoundError
from orchestrator.jobs.index import read_index
from orchestrator.store import keys
from orchestrator.store.keys import MADE_ID, JobPaths, check_name, stem_of
from orchestrator.store.objects import ObjectStore


def find_job_id(store: ObjectStore, job: str) -> str:
    """Return the id of a job given by its id, or of the newest job with that name.

    Raises:
        JobNotFoundError: There is none.
        BadInputError: It cannot be an id or a name.
    """
    check_name("job", job)
    if store.exists(JobPaths(job).spec):
        return job
    candidates = _made_ids(store, job) + _chosen_ids(store, job)
    if not candidates:
        raise JobNotFoundError(job)
    return max(candidates)[1]


def _made_ids(store: ObjectStore, name: str) -> list[tuple[str, str]]:
    """Return (time, id) of the jobs whose id was made from the name."""
    stem = stem_of(name)
    folders = store.list_folders(f"{keys.JOBS}{stem}-")
    matches = [match for folder in folders if (match := MADE_ID.fullmatch(folder))]
    return [(match["time"], match[0]) for match in matches if match["name"] == stem]


def _chosen_ids(store: ObjectStore, name: str) -> list[tuple[str, str]]:
    """Return (time, id) of the indexed jobs of that name whose id the user chose."""
    index = read_index(store)
    entries = [*index.live, *index.ended] if index else []
    return [
        (f"{entry.submitted_at.astimezone(UTC):%Y%m%d-%H%M%S}", entry.job_id)
        for entry in entries
        if entry.name == name and MADE_ID.fullmatch(entry.job_id) is None
    ]
