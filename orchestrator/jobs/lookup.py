"""Finds the job that a user means by an id, a name, the beginning of an id, or @last."""

from contextlib import suppress
from datetime import UTC, datetime

from orchestrator.counts import counted, few
from orchestrator.errors import BadInputError, JobNotFoundError
from orchestrator.jobs.index import read_entries, read_index
from orchestrator.jobs.index_entry import IndexEntry
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import GROUP_KINDS
from orchestrator.specs.stored_parts import GROUP_PARTS
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from orchestrator.store.names import MADE_ID, SMOKE_ENDING, check_name, stem_of
from orchestrator.store.objects import ObjectStore

LAST = "@last"
_SHOWN = 6


def find_job_id(store: ObjectStore, job: str) -> str:
    """Return the id of the job that somebody at a terminal means.

    Args:
        store: Where the jobs are.
        job: An id, a name (its newest job), the beginning of one id alone, or `@last`.

    Raises:
        JobNotFoundError: There is none.
        BadInputError: It cannot be any of these, or is the beginning of several.
    """
    if job == LAST:
        return _newest(store)
    try:
        return exact_job_id(store, job)
    except JobNotFoundError:
        begun = store.list_folders(f"{keys.JOBS}{job}")
    if not begun:
        raise JobNotFoundError(job, _group_to_begin(store, job))
    if len(begun) > 1:
        named = few(sorted(begun), _SHOWN)
        raise BadInputError(f"{job} is the beginning of {counted(len(begun), 'job')}: {named}")
    return begun[0]


def live_job_id(store: ObjectStore, job: str) -> str:
    """Return the id of the job that somebody means who wants to end it: a name means a live one.

    Args:
        store: Where the jobs are.
        job: As for `find_job_id`, which is asked where no live job has that name.

    Raises:
        JobNotFoundError: There is none.
        BadInputError: Several live jobs have that name; the message names them.
    """
    if job == LAST or store.exists(JobPaths(check_name("job", job)).spec):
        return find_job_id(store, job)
    live = sorted(e.job_id for e in _known_jobs(store) if e.name == job and not e.state.has_ended)
    if len(live) > 1:
        raise BadInputError(f"{len(live)} live jobs are named {job}; name one: {', '.join(live)}")
    return live[0] if live else find_job_id(store, job)


def exact_job_id(store: ObjectStore, job: str) -> str:
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


def _group_to_begin(store: ObjectStore, job: str) -> str:
    """Return the live group one of whose jobs will have this id or name; "" if none will."""
    for entry in _known_jobs(store):
        if entry.kind not in GROUP_KINDS or entry.state.has_ended:
            continue
        with suppress(JobNotFoundError):  # deleted meanwhile
            # As it is stored: the models of job files take longer than all that finds a job.
            group = GROUP_PARTS.of(RecordStore(store).stored_spec(entry.job_id).spec, entry.job_id)
            if any(job in (child.job_id, child.spec.name) for child in group.children):
                return entry.job_id
    return ""


def _newest(store: ObjectStore) -> str:
    """Return the job that was submitted last: no job of a group, and no smoke test."""
    own = [e for e in _known_jobs(store) if not e.parent and not e.job_id.endswith(SMOKE_ENDING)]
    if not own:
        raise JobNotFoundError(LAST)
    return max(own, key=lambda entry: (entry.submitted_at, entry.job_id)).job_id


def _known_jobs(store: ObjectStore) -> list[IndexEntry]:
    """Return the jobs of the index, and those that were submitted since it was written."""
    entries = _indexed(store)
    known = {entry.job_id for entry in entries}
    fresh = [job for job in RecordStore(store).queued_ids() if job not in known]
    return entries + [entry for entry in read_entries(store, fresh) if entry is not None]


def _made_ids(store: ObjectStore, name: str) -> list[tuple[str, str]]:
    """Return (time, id) of the jobs whose id was made from the name."""
    stem = stem_of(name)
    folders = store.list_folders(f"{keys.JOBS}{stem}-")
    matches = [match for folder in folders if (match := MADE_ID.fullmatch(folder))]
    return [(match["time"], match[0]) for match in matches if match["name"] == stem]


def _chosen_ids(store: ObjectStore, name: str) -> list[tuple[str, str]]:
    """Return (time, id) of the indexed jobs of that name whose id the user chose."""
    return [
        (_stamp(entry.submitted_at), entry.job_id)
        for entry in _indexed(store)
        if entry.name == name and MADE_ID.fullmatch(entry.job_id) is None
    ]


def _indexed(store: ObjectStore) -> list[IndexEntry]:
    index = read_index(store)
    return [*index.live, *index.ended] if index else []


def _stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y%m%d-%H%M%S}"
