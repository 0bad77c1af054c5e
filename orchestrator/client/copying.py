"""Copies a whole store, and proves each object of the copy by its bytes.

What names data is put after the data, and a job's spec after all of the job, so that a copy that
was broken off holds no job by half; the same command goes on with it. Jobs that have not ended
are refused: two orchestrators would run them.
"""

import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import groupby
from pathlib import Path

from orchestrator.counts import counted, few
from orchestrator.errors import ObjectNotFoundError, OrchestratorError
from orchestrator.jobs.records import RecordStore
from orchestrator.store import keys
from orchestrator.store.codec import Codec
from orchestrator.store.objects import ObjectInfo, ObjectStore

THREADS = 8
_IN_MEMORY_BYTES = 64 * 1024**2
_NAMED = 5
# They tell of processes, of one server, or of a moment.
_NOT_COPIED = (keys.LEASE, keys.SNAPSHOT, keys.NODES, keys.DOCTOR, keys.PROOFS, keys.COPIED_FROM)
_MD5 = re.compile(r'"?[0-9a-f]{32}"?')


@dataclass(frozen=True, kw_only=True)
class CopiedFrom:
    """What a copy says of itself.

    Attributes:
        source: The store that it is of: server and address.
        begun_at: When it was begun.
        finished_at: When all of it was there; None while it is not whole, or brought up to date.
    """

    source: str
    begun_at: datetime
    finished_at: datetime | None = None


COPIED_FROM = Codec(CopiedFrom, "mark of a copy")


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What a copy came to.

    Attributes:
        objects: Objects of the store.
        size_bytes: Their size.
        copied: Those that were written now; the others were there already.
        removed: Objects of an earlier copy that the store no longer has.
    """

    objects: int
    size_bytes: int
    copied: int
    removed: int


def copy_store(
    source: ObjectStore, target: ObjectStore, say: Callable[[str], None] = lambda _: None
) -> Copied:
    """Make the target hold what the source holds, or go on with that.

    Args:
        source: A store in which no job lives.
        target: An empty one, or an earlier copy of this one in which nothing ever ran.
        say: Told how far it is.

    Raises:
        OrchestratorError: Jobs live, somebody changed the store meanwhile, the target is another
            store's, or an object arrived changed.
    """
    _check_apart(source, target)
    _check_idle(source)
    mark = _claim(source, target)
    objects = [info for info in source.list_objects("") if not _stays(info.key)]
    there = {info.key: info for info in target.list_objects("") if not _stays(info.key)}
    removed = _remove(target, there.keys() - {info.key for info in objects})
    counts: Counter[bool] = Counter()
    carry = partial(_carry, source, target, there)
    with ThreadPoolExecutor(THREADS) as pool:
        for _, group in groupby(sorted(objects, key=_order), key=lambda info: _order(info)[0]):
            for written in pool.map(carry, group):  # all of it, before what names it
                counts[written] += 1
                if counts.total() % 1000 == 0:
                    say(f"{counts.total()} of {counted(len(objects), 'object')}")
    _check_idle(source)
    if [_seen(info) for info in source.list_objects("") if not _stays(info.key)] != [
        _seen(info) for info in objects
    ]:
        raise OrchestratorError("the store was changed while it was copied: run it again")
    whole = CopiedFrom(source=mark.source, begun_at=mark.begun_at, finished_at=target.now())
    target.put(keys.COPIED_FROM, COPIED_FROM.encode(whole))
    size_bytes = sum(info.size_bytes for info in objects)
    return Copied(objects=len(objects), size_bytes=size_bytes, copied=counts[True], removed=removed)


def _seen(info: ObjectInfo) -> tuple[str, str]:
    return info.key, info.etag


def _stays(key: str) -> bool:
    return key.startswith(_NOT_COPIED)


def _order(info: ObjectInfo) -> tuple[int, str]:
    """Return when an object may be there: data, what names them, a job's spec, what lists jobs."""
    key = info.key
    if not key.startswith((keys.JOBS, keys.DATASETS, keys.FEATURES)):
        return 3, key
    if key.startswith(keys.JOBS) and key.count("/") == 2:
        return 2, key
    is_data = "/attempts/" in key or "/chunks/" in key or not key.endswith(".json")
    return (0 if is_data else 1), key


def _check_apart(source: ObjectStore, target: ObjectStore) -> None:
    one, other = f"{source.address.rstrip('/')}/", f"{target.address.rstrip('/')}/"
    if one.startswith(other) or other.startswith(one):
        raise OrchestratorError(
            f"{target.uri} lies in {source.uri}, or the other way round: take another prefix"
        )


def _check_idle(source: ObjectStore) -> None:
    """Refuse a store in which a job lives, or somebody has just asked for something."""
    live = RecordStore(source).queued_ids()
    if live:
        raise OrchestratorError(
            f"{counted(len(live), 'job')} of {source.uri} have not ended ({few(live, _NAMED)}): "
            "wait for them or cancel them, since a copy would run them a second time"
        )
    if next(source.list_objects(keys.INBOX), None) is not None:
        raise OrchestratorError(f"requests in {source.uri} wait for the orchestrator: try again")


def _claim(source: ObjectStore, target: ObjectStore) -> CopiedFrom:
    """Return the target's mark, put now if it is empty."""
    mark = COPIED_FROM.value(target, keys.COPIED_FROM)
    if mark is None:
        if any(not info.key.startswith(keys.PROOFS) for info in target.list_objects("")):
            raise OrchestratorError(f"{target.uri} is not empty: take another prefix")
        mark = CopiedFrom(source=source.address, begun_at=target.now())
        target.put(keys.COPIED_FROM, COPIED_FROM.encode(mark), if_absent=True)
        return mark
    if mark.source != source.address:
        raise OrchestratorError(f"{target.uri} is a copy of {mark.source}: take another prefix")
    if target.exists(keys.LEASE):
        raise OrchestratorError(
            f"an orchestrator has worked on {target.uri} since it was copied: take another prefix"
        )
    if mark.finished_at is not None:  # no longer: it is about to change
        mark = replace(mark, finished_at=None)
        target.put(keys.COPIED_FROM, COPIED_FROM.encode(mark))
    return mark


def _remove(target: ObjectStore, extra: Iterable[str]) -> int:
    found = sorted(extra)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(target.delete, found))
    return len(found)


def _carry(
    source: ObjectStore, target: ObjectStore, there: dict[str, ObjectInfo], info: ObjectInfo
) -> bool:
    """Have the target hold an object; tell whether it had to be written."""
    standing = there.get(info.key)
    if standing is not None and standing.size_bytes == info.size_bytes:
        is_plain = _MD5.fullmatch(info.etag) and _MD5.fullmatch(standing.etag)
        if is_plain and info.etag == standing.etag:
            return False
        if _sha256(source, info) == _sha256(target, info):
            return False
    sent = _send(source, target, info)
    if _sha256(target, info) != sent:
        raise OrchestratorError(f"{info.key} arrived changed in {target.uri}: run it again")
    return True


def _send(source: ObjectStore, target: ObjectStore, info: ObjectInfo) -> str:
    """Write an object to the target, and return the SHA-256 of what was read."""
    if info.size_bytes <= _IN_MEMORY_BYTES:
        body = source.get(info.key).body
        target.put(info.key, body)
        return hashlib.sha256(body).hexdigest()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "object"
        source.get_file(info.key, path)
        target.put_file(info.key, path)
        return _sha256_of(path)


def _sha256(store: ObjectStore, info: ObjectInfo) -> str:
    """Return the hash of an object as a store gives it back; "" where there is none."""
    try:
        if info.size_bytes <= _IN_MEMORY_BYTES:
            return hashlib.sha256(store.get(info.key).body).hexdigest()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "object"
            store.get_file(info.key, path)
            return _sha256_of(path)
    except ObjectNotFoundError:
        return ""


def _sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
