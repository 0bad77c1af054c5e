"""Proves, once a store, that it honours conditional writes; everything rests on them."""

import json
import secrets
from collections.abc import Callable

from orchestrator.errors import BadInputError, ConditionFailedError, ObjectNotFoundError
from orchestrator.store import keys
from orchestrator.store.objects import ObjectStore


def prove_conditions(store: ObjectStore) -> None:
    """Refuse a store that ignores conditions; what was seen is remembered in it.

    Called before anybody's first write. Each server through which the store is reached is proven:
    a gateway may ignore what the server behind it honours.

    Raises:
        BadInputError: A condition was ignored.
    """
    proof = keys.conditions_proof(store.address)
    if store.exists(proof):
        return
    folder = f"{keys.DOCTOR}{secrets.token_hex(8)}/"
    try:
        ignored = [
            promise
            for number, (promise, holds) in enumerate(_PROMISES.items())
            if not holds(store, f"{folder}{number}")
        ]
    finally:
        for info in list(store.list_objects(folder)):
            store.delete(info.key)
    if ignored:
        raise BadInputError(
            f"the store {store.uri} ignores {' and '.join(ignored)}, so two writers can overwrite "
            "each other; use one that honours conditional writes (AWS S3, SeaweedFS, R2, Ceph)"
        )
    store.put(proof, json.dumps({"format_version": 1, "address": store.address}).encode())


def _is_turned_away(write: Callable[[], object]) -> bool:
    try:
        write()
    except (ConditionFailedError, ObjectNotFoundError):
        return True
    return False


def _absent(store: ObjectStore, key: str) -> bool:
    store.put(key, b"first", if_absent=True)
    return _is_turned_away(lambda: store.put(key, b"second", if_absent=True))


def _unchanged(store: ObjectStore, key: str) -> bool:
    etag = store.put(key, b"first")
    store.put(key, b"second", if_match=etag)
    return _is_turned_away(lambda: store.put(key, b"third", if_match=etag))


def _gone(store: ObjectStore, key: str) -> bool:
    etag = store.put(key, b"first")
    store.delete(key)
    return _is_turned_away(lambda: store.put(key, b"second", if_match=etag))


_PROMISES: dict[str, Callable[[ObjectStore, str], bool]] = {
    "put-if-absent": _absent,
    "put-if-unchanged": _unchanged,
    "put-if-unchanged of what is gone": _gone,
}
