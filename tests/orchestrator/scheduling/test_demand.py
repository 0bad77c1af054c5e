"""What is asked of the autoscaler is what the queue would use: no more, no less."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.scheduling.decide import decide
from orchestrator.scheduling.demand import Bundle, demand, with_promised
from orchestrator.scheduling.explanation import explain
from orchestrator.scheduling.nodes import NodeType
from orchestrator.scheduling.promised import promised_nodes
from orchestrator.scheduling.snapshot import Snapshot, started_job
from orchestrator.scheduling.verdict import Verdict
from tests.support.examples import examples
from tests.support.scheduling import Cluster, clusters, gang, job, node

NOW = 1000.0
GPU = NodeType(
    name="gpu", cpus=16, gpus=4, memory_gb=64, accelerator="H100", max_count=2
)  # fmt: skip
HEAD = replace(node("head", 0, cpus=1), free_cpus=0.0)


def wish(snapshot: Snapshot) -> dict[Bundle, int]:
    """Return how often each bundle is asked for."""
    found = demand(snapshot)
    return {bundle: found.count(bundle) for bundle in found}


def test_a_gang_asks_for_all_of_its_workers_from_nothing() -> None:
    """On a cluster that scales from zero nobody else would ever ask for a node."""
    snapshot = Snapshot(queue=[gang("j1", 6)], nodes=[HEAD], node_types=[GPU])
    assert wish(snapshot) == {Bundle(1.0, 1.0): 6}
    told = explain(snapshot, "j1", NOW)
    assert told.verdict is Verdict.WAITS_FOR_NODES
    assert "have room for 0 of its 6 workers" in told.reason
    assert "(gpu)" in told.reason


def test_what_the_autoscaler_can_never_give_is_not_asked_for() -> None:
    """Nodes for a part of a gang would stand idle; `explain` says never."""
    snapshot = Snapshot(queue=[gang("j1", 9), job("j2", 8)], nodes=[HEAD], node_types=[GPU])
    assert demand(snapshot) == ()
    for name in ("j1", "j2"):
        assert explain(snapshot, name, NOW).verdict is Verdict.NEVER


def test_the_queue_asks_for_what_fits_in_turn() -> None:
    """The second gang's nodes would come only to wait for those of the first."""
    snapshot = Snapshot(
        queue=[gang("j1", 5), gang("j2", 5), gang("j3", 3)], nodes=[HEAD], node_types=[GPU]
    )
    assert wish(snapshot) == {Bundle(1.0, 1.0): 8}


def test_a_fleet_asks_for_as_many_as_it_may_have() -> None:
    """It takes as many as fit, so it would use all that the autoscaler gives."""
    fleet = job("j1", num_workers_min=1, num_workers_max=20)
    snapshot = Snapshot(queue=[fleet], nodes=[HEAD], node_types=[GPU])
    assert wish(snapshot) == {Bundle(1.0, 1.0): 8}
    limited = replace(snapshot, quotas={"default": 3.0})
    assert wish(limited) == {Bundle(1.0, 1.0): 3}


def test_what_runs_is_part_of_the_wish_and_idleness_asks_for_nothing() -> None:
    """A wish replaces the one before: left out, the nodes of what runs would be taken away."""
    running = started_job(gang("j1", 4), {"n1": 4}, NOW)
    present = replace(node("n1", 4), free_gpus=0.0, labels={"ray.io/node-group": "gpu"})
    snapshot = Snapshot(running=[running], nodes=[HEAD, present], node_types=[GPU])
    assert wish(snapshot) == {Bundle(1.0, 1.0): 4}
    assert [n.node_id for n in promised_nodes([GPU], snapshot.nodes)] == ["~gpu-00000"]
    assert demand(replace(snapshot, running=[])) == ()


def test_a_node_without_a_group_is_known_by_its_size() -> None:
    """Not every provider labels its nodes; counted twice, a gang would wait that never fits."""
    alike = [node(f"n{number}", GPU.gpus, cpus=GPU.cpus) for number in range(2)]
    assert promised_nodes([GPU], [HEAD, *alike]) == []
    assert len(promised_nodes([GPU], [HEAD, node("n1", 1)])) == 2


def test_wishes_carry_type_memory_and_labels() -> None:
    """A node of another type that comes would be of no use."""
    asked = job(
        "j1", accelerators=("H100", "A100"), labels=(("zone", "a"),), memory_gb_per_worker=8
    )
    snapshot = Snapshot(queue=[asked], nodes=[HEAD], node_types=[GPU])
    selector = (("ray.io/accelerator-type", "in(H100,A100)"), ("zone", "a"))
    assert demand(snapshot) == (Bundle(1.0, 1.0, 8.0, selector),)
    other = replace(asked, accelerators=("T4",))
    assert demand(replace(snapshot, queue=[other])) == ()
    assert explain(replace(snapshot, queue=[other]), "j1", NOW).verdict is Verdict.NEVER


def test_a_job_that_waits_for_another_asks_for_nothing_yet() -> None:
    """Its nodes would stand idle until its model is trained."""
    waiting = gang("j1", 2, waits_for="the end of job j0")
    assert demand(Snapshot(queue=[waiting], nodes=[HEAD], node_types=[GPU])) == ()


@settings(max_examples=examples(60), deadline=None)
@given(clusters(), st.integers(0, 3))
def test_a_wish_is_the_same_once_it_is_granted(cluster: Cluster, max_count: int) -> None:
    """Else the cluster would grow and shrink for ever; and who is asked for never starves."""
    kind = replace(GPU, accelerator="", max_count=max_count)
    running = [job for job in cluster.snapshot.running if not job.stopping]
    snapshot = replace(cluster.snapshot, node_types=[kind], running=running)
    wished = demand(snapshot)
    came = [
        replace(n, is_promised=False, labels={"ray.io/node-group": kind.name})
        for n in with_promised(snapshot)[len(snapshot.nodes) :]
    ]
    granted = replace(snapshot, nodes=[*snapshot.nodes, *came])
    assert demand(granted) == wished
    if wished and not running:
        assert decide(granted, cluster.now + 1e9)
