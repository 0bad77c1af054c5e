"""The lease that makes one orchestrator the one that acts.

The holder renews an object in the store with If-Match; whoever finds it older than its term takes
it with a higher fencing number. Age is judged by the store's clock alone. A holder that slept past
its term learns so from `guard`, before it writes anything.
"""

import secrets
import socket
import time
from dataclasses import asdict, replace

import psutil

from orchestrator.cluster.process_identity import ProcessIdentity
from orchestrator.errors import ConditionFailedError, LeaseLostError
from orchestrator.jobs.lease_view import LEASE, RENEW_EVERY_S, TERM_S, LeaseHolder
from orchestrator.store import keys
from orchestrator.store.objects import ObjectStore


class Lease:
    """One orchestrator's hold on the store.

    Args:
        store: Where the lease lies.
        version: Version and code hash of this orchestrator, for readers.
        term_s: Age from which somebody else may take it.
        node_id: The Ray node of this orchestrator.
        session: Of Ray, in which this orchestrator lives and dies.

    Attributes:
        owner: What names this hold in the store; no two are alike.
        fence: Number of this hold; a later one has a higher number.
        renewals: How often it was written.
    """

    def __init__(
        self,
        store: ObjectStore,
        version: str,
        term_s: float = TERM_S,
        node_id: str = "",
        session: str = "",
    ) -> None:
        self.owner = secrets.token_hex(8)
        self.fence = 0
        self.renewals = 0
        self._store = store
        self._term_s = term_s
        self._etag = ""
        self._renewed_s = float("-inf")
        self._holder = LeaseHolder(
            owner=self.owner,
            host=socket.gethostname(),
            **asdict(ProcessIdentity.of(psutil.Process(), node_id)),
            version=version,
            session=session,
        )

    def acquire(self) -> bool:
        """Take the lease if nobody holds it; return whether this orchestrator holds it now."""
        standing = LEASE.read(self._store, keys.LEASE)
        fence = 0
        if standing is not None:
            holder, stored = standing
            fence = holder.fence
            if stored.age.total_seconds() <= self._term_s and not _is_over(holder):
                return False
        try:
            self._put(fence + 1, standing[1].etag if standing else None)
        except ConditionFailedError:
            return False
        return True

    def renew(self) -> None:
        """Renew the lease if it is time to. Raises: LeaseLostError."""
        self.guard()
        if _seconds() - self._renewed_s < RENEW_EVERY_S:
            return
        try:
            self._put(self.fence, self._etag)
        except ConditionFailedError as error:
            self._renewed_s = float("-inf")
            raise LeaseLostError("another orchestrator has taken the lease") from error

    def guard(self) -> None:
        """Raise LeaseLostError unless this orchestrator holds the lease for certain."""
        if _seconds() - self._renewed_s > self._term_s:
            raise LeaseLostError("the lease of this orchestrator has run out")

    def release(self) -> None:
        """Let the next orchestrator take over at once."""
        self.guard()
        self._put(self.fence, self._etag, released=True)
        self._renewed_s = float("-inf")

    def _put(self, fence: int, etag: str | None, released: bool = False) -> None:
        started_s = _seconds()  # the term counts from before the write, to be on the safe side
        body = LEASE.encode(replace(self._holder, fence=fence, released=released))
        if etag is None:
            self._etag = self._store.put(keys.LEASE, body, if_absent=True)
        else:
            self._etag = self._store.put(keys.LEASE, body, if_match=etag)
        self.fence = fence
        self.renewals += 1
        self._renewed_s = started_s


def _is_over(holder: LeaseHolder) -> bool:
    """Tell whether a holder is proven gone: it let go, or its process on this machine is dead."""
    if holder.released:
        return True
    holding = ProcessIdentity(pid=holder.pid, born_s=holder.born_s, boot_id=holder.boot_id)
    # Another machine may bear this host's name: its term decides, as that of an earlier start.
    return holding.is_of_this_machine and holding.find() is None


def _seconds() -> float:
    """Return a clock that also counts while the process or the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
