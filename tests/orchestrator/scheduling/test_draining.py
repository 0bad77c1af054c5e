"""A node that is about to leave counts as gone, and a job that fits only there waits."""

from dataclasses import replace

from orchestrator.scheduling.decide import decide
from orchestrator.scheduling.explanation import explain
from orchestrator.scheduling.snapshot import Snapshot
from orchestrator.scheduling.verdict import Verdict
from tests.support.scheduling import Cluster, job, node, starts, victims

NOW = 1000.0


def test_a_job_that_fits_only_where_a_node_leaves_waits() -> None:
    """Most often another node comes in its place: "never" would have people cancel."""
    leaving = replace(node("n1", 8), is_draining=True)
    snapshot = Snapshot(queue=[job("j1", 8)], nodes=[leaving, node("n2", 2)])
    assert decide(snapshot, NOW) == []
    told = explain(snapshot, "j1", NOW)
    assert told.verdict is Verdict.NOT_NOW
    assert "being drained: 1 node" in told.reason
    rooms = {room.node_id: room for room in told.free}
    assert (rooms["n1"].num_workers, rooms["n1"].unsuited) == (0, "it is being drained")
    assert rooms["n2"].unsuited == ""


def test_nobody_is_evicted_from_a_node_that_leaves() -> None:
    """His room there is of use to nobody."""
    cluster = Cluster([node("n1", 4)])
    cluster.submit(job("j1", 4, priority=10))
    cluster.step()
    leaving = [replace(n, is_draining=True) for n in cluster.snapshot.nodes]
    cluster.snapshot = replace(cluster.snapshot, nodes=[*leaving, node("n2", 4)])
    cluster.submit(job("j2", 4, priority=90))
    actions = cluster.step()
    assert victims(actions) == set()
    assert starts(actions) == {"j2": {"n2": 1}}
