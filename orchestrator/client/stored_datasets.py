"""The data sets of a store: which there are, what refers to them, and how one goes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from orchestrator.artifacts.datasets.manifest import read_manifest
from orchestrator.artifacts.datasets.refs import (
    DatasetRef,
    describe,
    manifest_key,
    stored_names,
)
from orchestrator.client.deletion import Removed, remove_objects
from orchestrator.client.status import list_jobs
from orchestrator.client.unreadable import NOTE, may_name, unlisted
from orchestrator.counts import does, few
from orchestrator.errors import BadInputError, DatasetError, JobNotFoundError, OrchestratorError
from orchestrator.jobs.prepared_sets import find_prepared, read_prepared, with_prepared
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_spec
from orchestrator.specs.kinds import Input, reads
from orchestrator.store.keys import DATASETS, dataset_folder
from orchestrator.store.objects import ObjectInfo, ObjectStore

HALF_MADE_OLDER_THAN = timedelta(days=1)
_THREADS = 16


def list_datasets(store: ObjectStore) -> list[DatasetRef]:
    """Return the data sets that are whole, by name."""
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda name: _whole(store, name), stored_names(store))
        return [ref for ref in found if ref is not None]


def _whole(store: ObjectStore, name: str) -> DatasetRef | None:
    try:
        return describe(store, name)
    except DatasetError:
        return None


def references_to_dataset(store: ObjectStore, ref: DatasetRef) -> list[str]:
    """Return what refers to a set: jobs, and sets with labels that have its images."""
    labelled = [
        f"the data set {other.sha256[:12]} with labels"
        for other in list_datasets(store)
        if other.images_sha256 == ref.sha256
    ]
    listed = list_jobs(store, everything=True)
    jobs = [job.job_id for job in listed if reads(job.kind, Input.DATASET)]
    hidden = unlisted(store, (job.job_id for job in listed), [ref.sha256])
    with ThreadPoolExecutor(_THREADS) as pool:
        references = pool.map(lambda job_id: _reference(store, job_id, ref.sha256), jobs)
        return labelled + [text for text in references if text] + hidden


def _reference(store: ObjectStore, job_id: str, sha256: str) -> str | None:
    """Return what a job is called that needs a set; None if it does not."""
    try:
        return f"job {job_id}" if _pinned_by(store, job_id) == sha256 else None
    except BadInputError:
        found = read_prepared(store, job_id)
        reads = found is not None and sha256 in (found.sha256, found.labelled_sha256)
        return f"job {job_id} {NOTE}" if reads or may_name(store, job_id, [sha256]) else None


def _pinned_by(store: ObjectStore, job_id: str) -> str | None:
    try:
        spec = read_spec(RecordStore(store), job_id)
    except JobNotFoundError:
        return None
    asked = spec.dataset_input
    if asked is None or asked.job is None or asked.sha256 is not None:
        return asked.sha256 if asked is not None else None
    try:  # the orchestrator has not looked yet
        _, prepared = find_prepared(store, asked.job)
    except BadInputError:  # what means nothing holds nothing
        return None
    pinned = spec if prepared is None else with_prepared(spec, prepared)
    return pinned.dataset_input.sha256 if pinned.dataset_input is not None else None


def delete_dataset(store: ObjectStore, ref: DatasetRef) -> Removed:
    """Remove a set: its manifest first, so that it is there whole or not at all.

    Raises:
        OrchestratorError: Something refers to it.
    """
    found = references_to_dataset(store, ref)
    if found:
        refer = does(len(found), "refer")
        raise OrchestratorError(f"{few(found)} {refer} to data set {ref.sha256[:12]}")
    chunks = () if ref.images_sha256 else read_manifest(store, ref.sha256).chunks
    infos = list(store.list_objects(dataset_folder(ref.sha256)))
    first = [info for info in infos if info.key == manifest_key(ref.sha256)]
    removed = remove_objects(store, first)
    removed += remove_objects(store, [info for info in infos if info not in first])
    for chunk in chunks:
        if not chunk.key.startswith(dataset_folder(ref.sha256)):
            store.delete(chunk.key)
            removed += Removed(1, chunk.size_bytes)
    return removed


def half_made(store: ObjectStore) -> Iterator[ObjectInfo]:
    """Yield what belongs to no data set and was not touched for a day."""
    infos = list(store.list_objects(DATASETS))
    by_folder: dict[str, list[ObjectInfo]] = {}
    for info in infos:
        first, _, rest = info.key.removeprefix(DATASETS).partition("/")
        is_shared = first in ("chunks", "preparing")
        folder = f"{first}/{rest.partition('/')[0]}" if is_shared else first
        by_folder.setdefault(folder, []).append(info)
    named = _named_chunks(store)
    for folder, members in by_folder.items():
        newest = max(info.modified_at for info in members)
        is_whole = any(info.key == manifest_key(folder) for info in members)
        if folder == "prepared" or is_whole or store.now() - newest < HALF_MADE_OLDER_THAN:
            continue
        yield from (info for info in members if info.key not in named)


def _named_chunks(store: ObjectStore) -> set[str]:
    """Return the chunks that manifests name; read after the objects were listed."""
    return {
        chunk.key
        for ref in list_datasets(store)
        if not ref.images_sha256
        for chunk in read_manifest(store, ref.sha256).chunks
    }
