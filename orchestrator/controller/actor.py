"""The orchestrator as a named detached Ray actor, and how one makes sure that it runs.

`python -m orchestrator.controller.actor STORE_URI` is what `ddpmctl orchestrator ensure` has the
cluster run: it finds the actor, or makes it, and ends.
"""

import hashlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from orchestrator.cluster.actor_places import on_head
from orchestrator.cluster.code_version import release
from orchestrator.cluster.exporter import RayExporter
from orchestrator.cluster.process_search import ProcessRef
from orchestrator.cluster.ray_cluster import RayCluster
from orchestrator.controller.lease import Lease
from orchestrator.controller.loop import Controller
from orchestrator.controller.notifications import WHAT, notify_all
from orchestrator.errors import ConditionFailedError, LeaseLostError, OrchestratorError
from orchestrator.jobs.lease_view import LeaseHolder, read_lease
from orchestrator.jobs.troubles import Troubles
from orchestrator.store.objects import open_store
from orchestrator.tracking.loop import carry_until

NAMESPACE = "ddpmctl"
LOOP_EVERY_S = 1.0
LOOK_FOR_REQUESTS_AFTER_S = 0.5
NOTIFY_EVERY_S = 2.0
PING_TIMEOUT_S = 10.0
REPLACE_TIMEOUT_S = 60.0
LOOP_ANSWER_S = 20.0
STUCK_LOOKS = 24
LOOK_EVERY_S = 5.0

# It computes nothing, so it must not open a GPU; an MLflow that is down is asked again later.
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "RAY_worker_niceness": "0",  # 15 is for those that compute, which it has to watch
}

logger = logging.getLogger(__name__)


def actor_name(store_uri: str) -> str:
    """Return the actor's name: one orchestrator a store."""
    return f"orchestrator-{hashlib.sha256(store_uri.encode()).hexdigest()[:12]}"


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
                    self._lead(Controller(store, cluster, lease), exporter)
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

    @staticmethod
    def _lead(controller: Controller, exporter: RayExporter) -> None:
        controller.take_over()
        while True:
            started_at = time.monotonic()
            controller.step()
            took_s = time.monotonic() - started_at
            exporter.show(controller.measures.numbers(took_s))
            left_s = LOOP_EVERY_S - took_s
            time.sleep(max(0.05, min(left_s, LOOK_FOR_REQUESTS_AFTER_S)))
            if left_s > LOOK_FOR_REQUESTS_AFTER_S and not controller.is_asked():
                time.sleep(left_s - LOOK_FOR_REQUESTS_AFTER_S)


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


def ensure(store_uri: str) -> None:
    """Make sure that the orchestrator of a store runs on this cluster, and that it answers."""
    import ray

    ray.init(address="auto", namespace=NAMESPACE, logging_level=logging.WARNING)
    deadline = time.monotonic() + REPLACE_TIMEOUT_S
    while True:
        actor = _actor(store_uri)
        try:
            pid = ray.get(actor.ping.remote(), timeout=PING_TIMEOUT_S)
        except (ray.exceptions.RayError, TimeoutError) as error:
            if time.monotonic() > deadline:
                raise
            logger.warning("the orchestrator does not answer, it is replaced: %s", error)
            _end(actor, store_uri)
            time.sleep(1.0)
        else:
            logger.info("the orchestrator of %s runs as process %d", store_uri, pid)
            return


def _actor(store_uri: str) -> Any:
    import ray

    remote = ray.remote(OrchestratorActor).options(
        name=actor_name(store_uri),
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_concurrency=4,
        num_cpus=0,
        **on_head(),
        runtime_env={"env_vars": _ENVIRONMENT},
    )
    return remote.remote(store_uri)


def _end(actor: Any, store_uri: str) -> None:
    """End an actor that does not answer; a stopped process hears no request, only SIGKILL."""
    import ray

    ray.kill(actor, no_restart=True)
    view = read_lease(open_store(store_uri))
    if view is not None and not view.is_fresh:
        RayCluster().kill([process_of(view.holder)])


def process_of(holder: LeaseHolder) -> ProcessRef:
    """Return the process that a lease names."""
    return ProcessRef(
        role="orchestrator",
        pid=holder.pid,
        born_s=holder.born_s,
        boot_id=holder.boot_id,
        node_id=holder.node_id,
        host=holder.host,
    )


def main() -> int:
    """Entry point of the Ray Job: STORE_URI."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    ensure(sys.argv[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
