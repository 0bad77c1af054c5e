"""`list` says of each job what `explain` would say of it alone: never, or waits for nodes."""

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.scheduling.explanation import explain
from orchestrator.scheduling.nodes import NodeType
from orchestrator.scheduling.outlook import outlooks
from orchestrator.scheduling.snapshot import Snapshot
from orchestrator.scheduling.verdict import Verdict
from tests.support.examples import examples
from tests.support.scheduling import Cluster, clusters, gang, job, node

TYPE = NodeType(name="gpu", cpus=8, gpus=4, memory_gb=64, accelerator="H100", max_count=2)


def test_a_job_that_the_autoscaler_can_make_room_for_is_told_from_one_that_never_starts() -> None:
    """Both wait in the same line; one of them for good."""
    queue = [gang("fits1", 2), gang("grows2", 8), gang("never3", 13)]
    snapshot = Snapshot(queue=queue, nodes=[node("n1", 4)], node_types=[TYPE])
    assert outlooks(snapshot) == {"grows2": Verdict.WAITS_FOR_NODES, "never3": Verdict.NEVER}
    alone = replace(snapshot, node_types=[])
    assert outlooks(alone) == {"grows2": Verdict.NEVER, "never3": Verdict.NEVER}


def test_a_gang_larger_than_its_quota_never_starts_whatever_grows() -> None:
    """More nodes would not help it."""
    snapshot = Snapshot(queue=[gang("a1", 3)], nodes=[node("n1", 4)], quotas={"default": 2})
    assert outlooks(snapshot) == {"a1": Verdict.NEVER}


def test_without_any_node_nothing_is_said() -> None:
    """Ray has just come up, or is away: what there will be nobody knows."""
    assert outlooks(Snapshot(queue=[job("a1")])) == {}


@settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cluster=clusters(), grows=st.integers(0, 2))
def test_it_is_what_explain_says(cluster: Cluster, grows: int) -> None:
    """Two answers to one question would be worse than none."""
    types = [replace(TYPE, max_count=grows)] if grows else []
    snapshot = replace(cluster.snapshot, node_types=types)
    found = outlooks(snapshot)
    for queued in snapshot.queue:
        told = explain(snapshot, queued.job_id, cluster.now).verdict
        mine = found.get(queued.job_id)
        assert (told is Verdict.NEVER) == (mine is Verdict.NEVER)
        if told is Verdict.WAITS_FOR_NODES:
            assert mine is Verdict.WAITS_FOR_NODES
