"""Where half-drawn shards lie, for the driver, which hands them on and loads none."""

import re
from collections.abc import Iterator

from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

_NAME = re.compile(r"attempts/(\d+)/partial/shard-(\d+)-[0-9a-f]+\.safetensors$")


def newest_partials(store: ObjectStore, paths: JobPaths, before: int) -> Iterator[tuple[int, str]]:
    """Yield shard number and key of what earlier attempts left; the newest of a shard is last.

    Args:
        store: Where they lie.
        paths: The job's keys.
        before: Number of the present attempt.
    """
    for number in range(1, before):
        left = store.list_objects(paths.attempt(number).partial)
        for info in sorted(left, key=lambda info: info.modified_at):
            found = _NAME.search(info.key)
            if found is not None:
                yield int(found[2]), info.key
