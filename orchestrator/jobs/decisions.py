"""What was decided once for a job, since it changes bits.

Which keys there are is the matter of the room that decides: it reads them through a form of its
own (`Codec.of`). All others hand them on as they are.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.store.codec import Codec
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True)
class Decisions:
    """What was decided, or what somebody proposes to decide.

    Attributes:
        values: JSON values, as they are stored; {} for nothing.
    """

    values: Mapping[str, object] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return them as they are stored."""
        return json.dumps(dict(self.values)).encode()


@dataclass(frozen=True)
class _Head:
    """What all decisions have in common."""

    attempt: int = 0


_HEAD = Codec(_Head, "decisions")


def decode_decisions(body: bytes, key: str) -> Decisions:
    """Return decisions from what is stored.

    Raises:
        StoredFormError: They are damaged, or of a newer version.
    """
    _HEAD.decode(body, key)
    return Decisions(json.loads(body))


def read_decisions(store: ObjectStore, job: JobPaths) -> Decisions | None:
    """Return what was decided for a job, or None if nothing yet. Raises as `decode_decisions`."""
    stored = _HEAD.read(store, job.decisions)
    return Decisions(json.loads(stored[1].body)) if stored else None
