"""The orchestrator's process: the loop in a thread, beside it what watches, notifies and tracks."""

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from orchestrator.cluster.code_version import code_has_changed, release
from orchestrator.cluster.exporter import RayExporter
from orchestrator.cluster.ray_cluster import RayCluster
from orchestrator.controller.lease import Lease
from orchestrator.controller.loop import Controller
from orchestrator.controller.notifications import WHAT, notify_all
from orchestrator.errors import ConditionFailedError, LeaseLostError, OrchestratorError
from orchestrator.jobs.troubles import Troubles
from orchestrator.store.s3_store import open_store
from orchestrator.tracking.loop import carry_until

LOOP_EVERY_S = 1.0
LOOK_FOR_REQUESTS_AFTER_S = 0.5
NOTIFY_EVERY_S = 2.0
LOOP_ANSWER_S = 20.0
STUCK_LOOKS = 24
LOOK_EVERY_S = 5.0

logger = logging.getLogger(__name__)


class OrchestratorActor:
    """Runs the loop in a thread, so that the actor answers while it works.

    Args:
        store_uri: The store whose jobs it moves.
    """

    def __init__(self, store_uri: str) -> None:
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
        )
        self._store_uri = store_uri
        self._holds_lease = threading.Event()
        self._rounds = 0
        self._lease: Lease | None = None
        threading.Thread(target=self._run, name="orchestrator", daemon=True).start()
        threading.Thread(
            target=end_if_stuck, args=(self._signs_of_life, _end_process), name="watch", daemon=True
        ).start()
        threading.Thread(
            target=notify_until, args=(store_uri, self._holds_lease), name="notify", daemon=True
        ).start()
        threading.Thread(
            target=carry_until, args=(store_uri, self._holds_lease), name="tracking", daemon=True
        ).start()

    def ping(self) -> int:
        """Return the process id, as a sign of life."""
        return os.getpid()

    def release(self) -> str:
        """Return the version and the beginning of the hash of the code that runs here."""
        return release()

    def _signs_of_life(self) -> tuple[int, int]:
        return self._rounds, self._lease.renewals if self._lease else 0

    def _run(self) -> None:
        store = open_store(self._store_uri, answer_within_s=LOOP_ANSWER_S)
        cluster = RayCluster()
        node_id = cluster.node_id
        exporter = RayExporter(self._store_uri)
        while True:
            self._rounds += 1
            self._lease = lease = Lease(store, release(), node_id=node_id, session=cluster.session)
            try:
                if lease.acquire():
                    logger.info("holding the lease of %s, fence %d", self._store_uri, lease.fence)
                    self._holds_lease.set()
                    lead_until_outdated(Controller(store, cluster, lease), exporter)
                    lease.release()
                    _end_process()  # Ray starts another one, with the code that is there now
            except (LeaseLostError, ConditionFailedError) as error:
                logger.warning("standing by: %s", error)
                exporter.clear()
            except OrchestratorError as error:
                logger.warning("the loop starts over: %s", error)
            except Exception:
                # The top of the process: whatever broke the loop, jobs must not stay unattended.
                logger.exception("the loop starts over")
            self._holds_lease.clear()
            with suppress(OrchestratorError):  # or it would wait for its own lease to run out
                lease.release()
            time.sleep(LOOP_EVERY_S)


def lead_until_outdated(controller: Controller, exporter: RayExporter) -> None:
    """Run the loop until a job is asked for in words that only the code on the disk knows.

    After an update the process goes on with the code that it began with, and a job file of the
    new version would wait for somebody to end it.
    """
    controller.take_over()
    while not (controller.met_unknown() and code_has_changed()):
        started_at = time.monotonic()
        controller.step()
        took_s = time.monotonic() - started_at
        exporter.show(controller.measures.numbers(took_s))
        left_s = LOOP_EVERY_S - took_s
        time.sleep(max(0.05, min(left_s, LOOK_FOR_REQUESTS_AFTER_S)))
        if left_s > LOOK_FOR_REQUESTS_AFTER_S and not controller.is_asked():
            time.sleep(left_s - LOOK_FOR_REQUESTS_AFTER_S)
    logger.warning("%s meets jobs of another version, which is on the disk by now", release())


def end_if_stuck(
    signs_of_life: Callable[[], object],
    end: Callable[[], None],
    look_every_s: float = LOOK_EVERY_S,
    patience: int = STUCK_LOOKS,
) -> None:
    """End the process whose loop waits for what never comes; Ray starts another one.

    Looks are counted, not seconds: a machine that slept finds the loop as it left it.

    Args:
        signs_of_life: Something that changes as long as the loop goes round.
        end: Ends the process.
        look_every_s: Seconds between two looks.
        patience: Looks in a row without a sign.
    """
    seen, looks = signs_of_life(), 0
    while looks < patience:
        time.sleep(look_every_s)
        now = signs_of_life()
        looks = looks + 1 if now == seen else 0
        seen = now
    logger.critical("the loop is stuck; this process ends, and Ray starts another one")
    end()


def _end_process() -> None:
    os._exit(1)  # no exception from another thread reaches the one that is stuck


def notify_until(store_uri: str, holds_lease: threading.Event) -> None:
    """Post the ends of jobs for as long as the process lives and holds the lease."""
    store = open_store(store_uri)
    troubles = Troubles(store, WHAT)
    while True:
        holds_lease.wait()
        try:
            notify_all(store, troubles)
        except OrchestratorError as error:
            logger.warning("notifications wait: %s", error)
        except Exception:
            # The top of a thread: one job's odd address must not silence all others.
            logger.exception("notifications wait")
        time.sleep(NOTIFY_EVERY_S)
