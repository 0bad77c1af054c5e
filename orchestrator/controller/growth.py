"""Asks the cluster's autoscaler for what the queue would use, and for less when it is idle."""

from datetime import datetime, timedelta

from orchestrator.cluster.ray_cluster import Cluster
from orchestrator.scheduling.demand import Bundle, demand
from orchestrator.scheduling.snapshot import Snapshot

RENEW_EVERY = timedelta(seconds=30)


class Growth:
    """The wish of one store.

    Args:
        cluster: Whose autoscaler is asked.
        store_uri: By which the cluster tells the wishes of several stores apart.
    """

    def __init__(self, cluster: Cluster, store_uri: str) -> None:
        self._cluster = cluster
        self._store_uri = store_uri
        self._wished: tuple[Bundle, ...] = ()
        self._at: datetime | None = None

    def follow(self, snapshot: Snapshot, now: datetime) -> None:
        """Tell the cluster what is wished for, when that changes and now and then.

        Args:
            snapshot: Nodes, jobs and what the autoscaler may start; of a cluster without one
                nothing is asked.
            now: By the store's clock.
        """
        if not snapshot.node_types:
            return
        wish = demand(snapshot)
        if self._at is None or wish != self._wished or now - self._at >= RENEW_EVERY:
            self._cluster.wish(self._store_uri, wish)
            self._wished, self._at = wish, now
