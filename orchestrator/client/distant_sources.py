"""Sources that the cluster takes in: what can be said of them where a job is submitted."""

from collections.abc import Iterator
from pathlib import Path

from orchestrator.artifacts.datasets.fit import check_fit
from orchestrator.artifacts.datasets.refs import describe, resolve_source
from orchestrator.errors import BadInputError, StoreError
from orchestrator.jobs.prepared_sets import find_prepared, with_prepared
from orchestrator.specs.checks import Remark
from orchestrator.specs.job import Job
from orchestrator.specs.prepare import source_of
from orchestrator.specs.sections import LabelFile, SourceSpec
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_bucket

_SOURCE = (("dataset", "source"),)


def with_source(job: Job, folder: Path) -> Job:
    """Return a job whose source, if it takes one in itself, means the same from anywhere.

    Raises:
        DatasetError: It is no path, URI or name.
    """
    asked = source_of(job)
    if asked is None:
        return job
    update: dict[str, object] = {"source": _seen_by_nodes(asked.source, folder)}
    if isinstance(asked.labels, LabelFile):
        update["labels"] = LabelFile(file=_seen_by_nodes(asked.labels.file, folder))
    return job.model_copy(update={"dataset": asked.model_copy(update=update)})


def _seen_by_nodes(source: str, folder: Path) -> str:
    """Return a source; a whole path counts, though it need not be there on this machine."""
    return source if source.startswith("/") else resolve_source(source, folder)


def remarks_on_source(spec: SourceSpec) -> Iterator[Remark]:
    """Yield what a short look at a source tells; nothing is read."""
    if spec.source.startswith("s3://"):
        yield from _on_bucket(spec.source)
    elif spec.source.startswith("/") and not Path(spec.source).exists():
        message = (
            f"dataset.source: there is no {spec.source} on this machine; all nodes must see it"
        )
        yield Remark(_SOURCE, message, is_fatal=False)


def _on_bucket(source: str) -> Iterator[Remark]:
    """Yield what is wrong with the URI of an object or a prefix."""
    bucket, _, key = source.removeprefix("s3://").partition("/")
    if not bucket:
        yield Remark(_SOURCE, f"dataset.source: {source!r} must look like s3://bucket/key")
        return
    try:
        below = open_bucket(f"s3://{bucket}").list_objects(key)
        found = next(iter(below), None)
    except StoreError as error:  # the nodes may have other rights
        message = f"dataset.source: {source} cannot be looked at from here: {error}"
        yield Remark(_SOURCE, message, is_fatal=False)
        return
    if found is None:
        yield Remark(_SOURCE, f"dataset.source: nothing lies at {source}, nor below it")


def remarks_on_preparation(store: ObjectStore, job: Job, preparation: str) -> Iterator[Remark]:
    """Yield what is wrong with a preparation that a job reads, as far as it is known now."""
    try:
        _, prepared = find_prepared(store, preparation)
        pinned = with_prepared(job, prepared) if prepared is not None else job
        if pinned.dataset_input is not None and pinned.dataset_input.sha256 is not None:
            check_fit(pinned, describe(store, pinned.dataset_input.sha256))
    except BadInputError as error:
        yield Remark((("dataset", "job"),), str(error))
