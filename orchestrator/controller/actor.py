"""How one makes sure that the orchestrator runs, as a named detached Ray actor.

`python -m orchestrator.controller.actor STORE_URI` is what a client has the cluster run: it finds
the actor, or makes it, and ends. The actor's class lies in `leading.py`: here it would belong to
`__main__`, Ray would keep its code by value, and a restart would bring the old one back.
"""

import hashlib
import logging
import sys
import time
from typing import Any

from orchestrator.cluster.actor_places import on_head
from orchestrator.cluster.code_version import release
from orchestrator.cluster.process_search import ProcessRef
from orchestrator.cluster.ray_cluster import RayCluster
from orchestrator.controller.leading import OrchestratorActor
from orchestrator.errors import OrchestratorError
from orchestrator.jobs.lease_view import LeaseHolder, read_lease
from orchestrator.store.s3_store import open_store

NAMESPACE = "ddpmctl"
PING_TIMEOUT_S = 10.0
REPLACE_TIMEOUT_S = 60.0

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


def ensure(store_uri: str) -> None:
    """Make sure that the orchestrator of a store runs on this cluster, answers, and runs this code.

    What runs may be of before an update, or of before other code was shipped to the cluster.

    Raises:
        OrchestratorError: Other code goes on running, as where somebody else ships theirs.
    """
    import ray

    ray.init(address="auto", namespace=NAMESPACE, logging_level=logging.WARNING)
    deadline = time.monotonic() + REPLACE_TIMEOUT_S
    while True:
        actor = _actor(store_uri)
        try:
            pid = ray.get(actor.ping.remote(), timeout=PING_TIMEOUT_S)
            theirs = _release_of(actor)
        except (ray.exceptions.RayError, TimeoutError) as error:
            if time.monotonic() > deadline:
                raise
            logger.warning("the orchestrator does not answer, it is replaced: %s", error)
        else:
            if theirs == release():
                logger.info("the orchestrator of %s runs as process %d", store_uri, pid)
                return
            if time.monotonic() > deadline:
                raise OrchestratorError(
                    f"the orchestrator of {store_uri} runs {theirs} and could not be replaced by "
                    f"{release()} in {REPLACE_TIMEOUT_S:.0f} s"
                )
            logger.warning("the orchestrator runs %s, it is replaced by %s", theirs, release())
        _end(actor, store_uri)
        time.sleep(1.0)


def _release_of(actor: Any) -> str:
    import ray

    try:
        return str(ray.get(actor.release.remote(), timeout=PING_TIMEOUT_S))
    except AttributeError:
        return "an earlier version"


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
