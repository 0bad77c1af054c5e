"""The one actor of a cluster that asks its autoscaler for nodes, for all stores together.

Ray keeps one wish for a cluster, and whoever asks overwrites it: two orchestrators that each asked
for themselves would take each other's nodes away.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.cluster.actor_places import on_head
from orchestrator.scheduling.demand import Bundle

ACTOR = "growth"
FORGET_AFTER_S = 120.0
LOOK_EVERY_S = 15.0
_BYTES_PER_GB = 10**9

Request = Callable[[list[dict[str, float]], list[dict[str, str]]], None]

logger = logging.getLogger(__name__)


class Wishes:
    """What each store wishes for; who is silent for long is forgotten.

    Args:
        request: Tells the autoscaler: bundles, and a label selector for each.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._wishes: dict[str, tuple[Sequence[Bundle], float]] = {}
        self._asked: list[Bundle] | None = None

    def wish(self, store: str, bundles: Sequence[Bundle], now: float) -> None:
        """Replace a store's wish.

        Args:
            store: Whose.
            bundles: The whole of it.
            now: Seconds of a clock that never goes back.
        """
        self._wishes[store] = (tuple(bundles), now)
        self.ask(now)

    def ask(self, now: float) -> None:
        """Ask the autoscaler for all wishes together, unless it was asked for just that."""
        self._wishes = {
            store: (bundles, at)
            for store, (bundles, at) in self._wishes.items()
            if now - at <= FORGET_AFTER_S
        }
        wanted = sorted(bundle for bundles, _ in self._wishes.values() for bundle in bundles)
        if wanted != self._asked:
            self._request([_resources(b) for b in wanted], [dict(b.labels) for b in wanted])
            self._asked = wanted


def _resources(bundle: Bundle) -> dict[str, float]:
    amounts = {
        "CPU": bundle.cpus,
        "GPU": bundle.gpus,
        "memory": round(bundle.memory_gb * _BYTES_PER_GB),
    }
    return {name: amount for name, amount in amounts.items() if amount}


def request_from_ray(bundles: list[dict[str, float]], selectors: list[dict[str, str]]) -> None:
    """Ask the autoscaler of this process's cluster."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=bundles, bundle_label_selectors=selectors)


class GrowthActor:
    """Holds the wishes as a named Ray actor."""

    def __init__(self) -> None:
        self._wishes = Wishes(request_from_ray)
        self._lock = threading.Lock()
        threading.Thread(target=self._forget, name="forget", daemon=True).start()

    def wish(self, store: str, bundles: Sequence[Bundle]) -> None:
        """Replace a store's wish."""
        with self._lock:
            self._wishes.wish(store, bundles, time.monotonic())

    def _forget(self) -> None:
        while True:
            time.sleep(LOOK_EVERY_S)
            with self._lock:
                self._wishes.ask(time.monotonic())


def growth_actor(namespace: str) -> Any:
    """Return the cluster's actor, started if it is not there."""
    import ray

    remote = ray.remote(GrowthActor).options(
        name=ACTOR,
        namespace=namespace,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        num_cpus=0,
        **on_head(),
    )
    return remote.remote()
