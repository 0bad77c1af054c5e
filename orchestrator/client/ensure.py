"""Makes sure, from outside the cluster, that the orchestrator runs."""

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.client.surroundings import Surroundings
from orchestrator.cluster.code_version import code_of, package_version, release
from orchestrator.cluster.entrypoints import python_entrypoint
from orchestrator.cluster.patience import patience_s
from orchestrator.cluster.ray_jobs import RayJobs
from orchestrator.cluster.ray_session import ray_session
from orchestrator.errors import OrchestratorError, RayRefusedError, RayUnavailableError
from orchestrator.jobs.lease_view import RENEW_EVERY_S, LeaseView, read_lease
from orchestrator.lifecycle.steps import DriverStatus
from orchestrator.store.objects import ObjectStore

LOOK_EVERY_S = 30.0
_SETTLE_S = 20.0  # a head that has just come up does not answer for some seconds
_POLL_S = 0.25
_PACKAGES = Path(__file__).resolve().parents[2]


def ensure_running(
    around: Surroundings, say: Callable[[str], None], within_s: float | None = None
) -> bool:
    """Have the embedded stack run, if that is used, and then the store's orchestrator.

    Args:
        around: What the verb works on.
        say: Told what is started.
        within_s: Patience with the orchestrator; DDPMCTL_PATIENCE_S, if None.

    Returns:
        Whether the orchestrator had to be started.

    Raises:
        StackError: A part of the stack does not start.
        RayUnavailableError: Ray does not answer, or the orchestrator does not come up.
    """
    restarted = "ray" in around.bring_up_rest(say)
    return ensure_orchestrator(around.store, say, restarted=restarted, within_s=within_s)


def ensure_orchestrator(
    store: ObjectStore,
    say: Callable[[str], None],
    *,
    restarted: bool = False,
    within_s: float | None = None,
) -> bool:
    """Have the cluster run the store's orchestrator; tell whether it had to be started.

    Args:
        store: Whose orchestrator.
        say: Told what is started.
        restarted: Whether Ray was just started again, so that its actors are gone.
        within_s: Patience; DDPMCTL_PATIENCE_S, if None.

    Raises:
        RayUnavailableError: Ray does not answer, or the orchestrator does not come up.
    """
    before, session = read_lease(store), ray_session()
    deadline = time.monotonic() + (patience_s() if within_s is None else within_s)
    acts = not restarted and before is not None and _acts(store, before, session, deadline)
    if before is not None and acts and not _is_to_be_replaced(before):
        if warning := _other_version(before):
            say(warning)
        return False
    say("starting the orchestrator on the Ray cluster")
    jobs = RayJobs(answer_within_s=min(60.0, max(1.0, deadline - time.monotonic())))
    submission_id = _submit(jobs, store, deadline)
    came_up = _came_up(jobs, submission_id, store, before, before if acts else None, deadline)
    if came_up is not None:
        return came_up
    tail = jobs.logs(submission_id).strip().splitlines()[-1:] or ["no output"]
    raise RayUnavailableError(f"the orchestrator does not come up on the cluster: {tail[0]}")


def _came_up(
    jobs: RayJobs,
    submission_id: str,
    store: ObjectStore,
    before: LeaseView | None,
    acted: LeaseView | None,
    deadline: float,
) -> bool | None:
    """Wait for an orchestrator; tell whether it is another one than acted, or None if none came.

    The one that acted stays if the cluster finds that it runs this code: the job that looks ends
    well, and that one renews its lease after.
    """
    found: LeaseView | None = None
    while time.monotonic() < deadline:
        lease = read_lease(store)
        if _is_new(lease, before) and not _is_same(lease, acted):
            return True
        if found is not None and _is_new(lease, found):
            return False
        status = jobs.status(submission_id)
        if status in (DriverStatus.FAILED, DriverStatus.STOPPED):
            return None
        if acted is not None and status is DriverStatus.SUCCEEDED:
            found = found or lease
        time.sleep(_POLL_S)
    return None


def _submit(jobs: RayJobs, store: ObjectStore, deadline: float) -> str:
    """Hand the job that starts the orchestrator to Ray, which may still be coming up."""
    settled = min(deadline, time.monotonic() + _SETTLE_S)
    while True:
        submission_id = f"ddpmctl-ensure-{secrets.token_hex(4)}"
        try:
            jobs.submit(
                submission_id,
                python_entrypoint("orchestrator.controller.actor", store.uri),
                metadata={"kind": "ensure"},
                runtime_env=shipped_code(),
            )
        except RayRefusedError:
            raise
        except RayUnavailableError as error:
            # One that answers comes up, however slow the machine is; another may not be there.
            is_silent = isinstance(error.__cause__, OSError)
            if time.monotonic() + _POLL_S >= (settled if is_silent else deadline):
                raise
            time.sleep(2 * _POLL_S)
        else:
            return submission_id


def _acts(store: ObjectStore, lease: LeaseView, session: str | None, deadline: float) -> bool:
    """Tell whether the holder of a lease acts now.

    A lease is younger than its term for some seconds after its holder died with its Ray: that one
    is told by its session. The orchestrator of another cluster renews it meanwhile.
    """
    if not lease.is_fresh:
        return False
    if session is None or lease.session in ("", session):
        return True
    deadline = min(deadline, time.monotonic() + 2 * RENEW_EVERY_S)
    while time.monotonic() < deadline:
        if _is_new(read_lease(store), lease):
            return True
        time.sleep(_POLL_S)
    return False


def _is_new(lease: LeaseView | None, before: LeaseView | None) -> bool:
    """Tell whether a lease was written since it was seen, by whomever, and holds."""
    if lease is None or not lease.is_fresh:
        return False
    return before is None or (lease.holder, lease.etag) != (before.holder, before.etag)


def _is_same(lease: LeaseView | None, before: LeaseView | None) -> bool:
    return lease is not None and before is not None and lease.holder.owner == before.holder.owner


def _is_to_be_replaced(lease: LeaseView) -> bool:
    """Tell whether this code is wanted on the cluster, where another one acts."""
    # Not by the version: on the cluster it is that of the package installed there.
    return bool(shipped_code()) and code_of(lease.holder.version) != code_of(release())


def _other_version(lease: LeaseView) -> str:
    """Return what to say of an orchestrator of another version; "" of one of this version."""
    theirs = lease.holder.version.partition("+")[0]
    if theirs in ("", package_version()):
        return ""
    return (
        f"the orchestrator runs version {theirs}, this is {package_version()}: "
        "what it does not know waits until the code on the cluster is updated"
    )


class Keeper:
    """Has an orchestrator that is gone started again, for as long as somebody waits for a job.

    Args:
        store: Whose orchestrator.
        say: Takes a line for people.
    """

    def __init__(self, store: ObjectStore, say: Callable[[str], None]) -> None:
        self._store = store
        self._say = say
        self._looked_at = time.monotonic()
        self._was_gone = False

    def look(self) -> None:
        """Look after it, if it is time to."""
        if time.monotonic() - self._looked_at < LOOK_EVERY_S:
            return
        try:
            lease = read_lease(self._store)
            is_gone = lease is None or not lease.is_fresh
            if is_gone and self._was_gone:  # once may be a store that was slow for a moment
                ensure_orchestrator(self._store, self._say)
            self._was_gone = is_gone
        except OrchestratorError as error:
            self._say(f"the job waits: {error}")
        self._looked_at = time.monotonic()


def shipped_code() -> dict[str, object]:
    """Return the runtime environment that carries this code to the cluster, if that is wanted.

    A cluster's image holds the code; with DDPMCTL_SHIP_CODE=1 both packages travel as folders.
    """
    if os.environ.get("DDPMCTL_SHIP_CODE") != "1":
        return {}
    return {"py_modules": [str(_PACKAGES / name) for name in ("ddpm", "orchestrator")]}
