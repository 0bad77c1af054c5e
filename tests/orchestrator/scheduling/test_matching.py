"""A job goes only where the type of GPU, the memory and the labels are what it asks for."""

from dataclasses import replace

import pytest

from orchestrator.scheduling.decide import decide
from orchestrator.scheduling.explanation import explain
from orchestrator.scheduling.nodes import NodeCapacity
from orchestrator.scheduling.snapshot import Snapshot
from orchestrator.scheduling.verdict import Verdict
from tests.support.scheduling import Cluster, gang, job, node, starts, victims

NOW = 1000.0


def typed(node_id: str, accelerator: str, gpus: float = 4, **labels: str) -> NodeCapacity:
    """Return an empty node of that type of GPU."""
    return replace(node(node_id, gpus), accelerator=accelerator, labels=labels)


def with_memory(node_id: str, memory_gb: float) -> NodeCapacity:
    """Return an empty node of so much memory."""
    return replace(node(node_id, 0), memory_gb=memory_gb, free_memory_gb=memory_gb)


def test_a_job_waits_for_the_type_that_it_asks_for() -> None:
    """An A100 that is free is no H100: the job waits, and its like without a wish starts."""
    nodes = [typed("n1", "A100")]
    asked = job("j1", accelerators=("H100",))
    snapshot = Snapshot(queue=[asked, job("j2")], nodes=nodes)
    assert starts(decide(snapshot, NOW)) == {"j2": {"n1": 1}}
    told = explain(snapshot, "j1", NOW)
    assert told.verdict is Verdict.NEVER
    assert "it has A100, not H100" in told.reason
    assert told.asks_for == "1 worker of 1 GPU (H100) and 1 CPU"
    assert told.free[0].unsuited == "it has A100, not H100"


def test_the_dearest_type_goes_first() -> None:
    """`[H100, A100]` is an order, not a set; once the H100s are taken, an A100 will do."""
    nodes = [typed("n1", "A100"), typed("n2", "H100", gpus=1)]
    cluster = Cluster(nodes)
    cluster.submit(*(job(f"j{k}", accelerators=("H100", "A100"), is_of_one_accelerator=True)
                     for k in (1, 2)))  # fmt: skip
    assert starts(cluster.step()) == {"j1": {"n2": 1}, "j2": {"n1": 1}}


def test_a_gang_of_one_type_never_mixes() -> None:
    """Gradients of two types of GPU added up are those of neither."""
    nodes = [typed("n1", "A100", gpus=2), typed("n2", "H100", gpus=2)]
    of_one = gang("j1", 3, is_of_one_accelerator=True)
    assert starts(decide(Snapshot(queue=[of_one], nodes=nodes), NOW)) == {}
    assert explain(Snapshot(queue=[of_one], nodes=nodes), "j1", NOW).verdict is Verdict.NEVER
    mixed = replace(of_one, is_of_one_accelerator=False)
    assert starts(decide(Snapshot(queue=[mixed], nodes=nodes), NOW))["j1"]
    fits = gang("j1", 2, is_of_one_accelerator=True)
    (placement,) = starts(decide(Snapshot(queue=[fits], nodes=nodes), NOW)).values()
    assert len(placement) == 1


def test_victims_lie_on_nodes_that_the_job_may_use() -> None:
    """To evict somebody from a node of another type would help nobody."""
    cluster = Cluster([typed("n1", "A100"), typed("n2", "H100")])
    cluster.submit(gang("j1", 4, priority=10), gang("j2", 4, priority=10))
    cluster.step()
    placed = {j.job_id: set(j.placement) for j in cluster.snapshot.running}
    cluster.submit(gang("j3", 4, priority=90, accelerators=("H100",), is_of_one_accelerator=True))
    assert victims(cluster.step()) == {j for j, on in placed.items() if on == {"n2"}}


@pytest.mark.parametrize(("zone", "is_started"), [("a", True), ("b", False)])
def test_labels_must_be_equal(zone: str, is_started: bool) -> None:
    """Data that lie in one zone are dear to read from another."""
    snapshot = Snapshot(
        queue=[job("j1", labels=(("zone", "a"),))], nodes=[typed("n1", "", zone=zone)]
    )
    assert bool(starts(decide(snapshot, NOW))) is is_started
    if not is_started:
        assert "its label zone is b, not a" in explain(snapshot, "j1", NOW).reason


def test_memory_is_given_away_once() -> None:
    """Two workers of 40 GB on a node of 64 would be killed for want of memory."""
    cluster = Cluster([with_memory("n1", 64)])
    asks = {"gpus_per_worker": 0, "memory_gb_per_worker": 40.0}
    cluster.submit(job("j1", **asks), job("j2", **asks))
    assert starts(cluster.step()) == {"j1": {"n1": 1}}
    assert cluster.step() == []
    cluster.end("j1")
    assert starts(cluster.step()) == {"j2": {"n1": 1}}
    cluster.submit(job("j3", gpus_per_worker=0, memory_gb_per_worker=100.0))
    told = explain(cluster.snapshot, "j3", NOW)
    assert told.verdict is Verdict.NEVER
    assert "64 GB" in told.reason


def test_memory_is_made_free_by_a_victim() -> None:
    """A job that lacks nothing but memory takes it from one of lower priority."""
    cluster = Cluster([with_memory("n1", 64)])
    asks = {"gpus_per_worker": 0, "memory_gb_per_worker": 40.0}
    cluster.submit(job("j1", priority=10, **asks))
    cluster.step()
    cluster.submit(job("j2", priority=90, **asks))
    assert victims(cluster.step()) == {"j1"}


def test_a_type_that_broke_attempts_is_used_last() -> None:
    """Where another type has room, the node that broke three attempts is left alone."""
    nodes = [typed("n1", "A100"), typed("n2", "H100")]
    asked = job("j1", is_of_one_accelerator=True, avoided_nodes=frozenset({"n1"}))
    assert starts(decide(Snapshot(queue=[asked], nodes=nodes), NOW)) == {"j1": {"n2": 1}}
    assert starts(decide(Snapshot(queue=[asked], nodes=nodes[:1]), NOW)) == {"j1": {"n1": 1}}
