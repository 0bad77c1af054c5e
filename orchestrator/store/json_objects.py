"""JSON objects of the store."""

import json

from orchestrator.errors import ObjectNotFoundError
from orchestrator.store.objects import ObjectStore, StoredObject


def read_json(store: ObjectStore, key: str) -> tuple[dict[str, object], StoredObject] | None:
    """Return a JSON object and how it was stored, or None where there is none."""
    try:
        stored = store.get(key)
    except ObjectNotFoundError:
        return None
    return json.loads(stored.body), stored
