"""What anybody sees of the orchestrator's lease: who holds it, and whether that one acts now."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.store import keys
from orchestrator.store.codec import Codec
from orchestrator.store.objects import ObjectStore

TERM_S = 20.0
RENEW_EVERY_S = 3.0


@dataclass(frozen=True, kw_only=True)
class LeaseHolder:
    """The process that holds the lease.

    Attributes:
        owner: A word that no other holder has.
        host: Its machine.
        pid: Its process there.
        born_s: Seconds from the machine's start to that of the process.
        boot_id: That start of the machine.
        node_id: The Ray node, if it knows.
        version: Version and code hash.
        fence: Number of this hold; a later one has a higher number.
        released: Whether it has let go.
        session: Of Ray, in which it lives and dies; "" of one of an earlier version.
    """

    owner: str = ""
    host: str = ""
    pid: int = 0
    born_s: float = 0.0
    boot_id: str = ""
    node_id: str = ""
    version: str = ""
    fence: int = 0
    released: bool = False
    session: str = ""


LEASE = Codec(LeaseHolder, "lease")


@dataclass(frozen=True)
class LeaseView:
    """What a reader sees of the lease.

    Attributes:
        holder: Who holds it.
        renewed_at: When it was renewed last, by the store's clock.
        age: How long ago that was.
        etag: Differs with each renewal.
    """

    holder: LeaseHolder
    renewed_at: datetime
    age: timedelta
    etag: str

    @property
    def is_fresh(self) -> bool:
        """Whether an orchestrator acts now."""
        return self.age <= timedelta(seconds=TERM_S) and not self.holder.released

    @property
    def session(self) -> str:
        """The session of Ray that the holder lives in; "" of one that did not say so yet."""
        return self.holder.session


def read_lease(store: ObjectStore) -> LeaseView | None:
    """Return the lease, or None where no orchestrator ever ran."""
    found = LEASE.read(store, keys.LEASE)
    if found is None:
        return None
    holder, stored = found
    return LeaseView(holder, stored.modified_at, stored.age, stored.etag)
