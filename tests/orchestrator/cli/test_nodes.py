"""`nodes` says what there is, who is on it, and who keeps away from it."""

import pytest

from orchestrator.cli.nodes import nodes_command
from orchestrator.client.submit import submit_job
from tests.orchestrator.controller.test_avoided_nodes import break_attempts
from tests.support.verbs import Verbs
from tests.support.world import World, train_job


def test_nodes_are_shown_with_who_is_on_them_and_who_avoids_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever has a sick machine sees which one it is, and since which attempts."""
    world = World()
    world.cluster.node_ids = ["n1", "n2"]
    labels = {"zone": "a", "ray.io/node-id": "n1"}
    world.cluster.told_of = {
        "n1": {"accelerator": "H100", "gpus": 2, "free_gpus": 2, "labels": labels}
    }
    job_id = submit_job(world.store, train_job(asks={"gpus_per_worker": 0})).job_id
    world.step()
    (first,) = world.record(job_id).attempts[0].node_ids
    break_attempts(world, job_id, 3)
    world.step()
    nodes = Verbs(monkeypatch, world.store)
    value = nodes(nodes_command, ["-o", "json"]).value
    by_id = {node["node_id"]: node for node in value["nodes"]}
    assert by_id[first]["avoided_by"] == [{"job_id": job_id, "why": "WORKER_LOST in 1, 2, 3"}]
    other = ({"n1", "n2"} - {first}).pop()
    assert by_id[other]["workers"] == {job_id: 1}
    text = nodes(nodes_command, []).out
    assert "H100" in text
    assert "labels   zone=a\n" in text  # Ray's own are for nobody to choose by
    assert f"on it    {job_id}: 1 worker\n" in text
    assert f"avoided  by {job_id}: WORKER_LOST in 1, 2, 3\n" in text
