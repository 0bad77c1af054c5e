"""One cluster on hosts that share nothing but the network, as their users find it.

What each host calls itself means 127.0.1.1 to it, as Debian and Ubuntu have it.
"""

import pytest

from tests.hosts.cluster import HEAD, Cluster
from tests.hosts.jobs import ended, final_weights, leader, reasons, status, wait_for_step
from tests.hosts.user import wait_until
from tests.integration.commands import train_text

_STEPS, _EVERY = 60, 10


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> str:
    """A training over both hosts that nothing happened to."""
    return cluster.submit(train_text("undisturbed", steps=_STEPS, every=_EVERY, workers=2))


def test_doctor_is_content_on_a_host_with_the_command_line_alone(cluster: Cluster) -> None:
    """All that a user needs beside the variables of infra/README.md is the package."""
    found = cluster.ddpmctl("doctor")
    assert found.exit_code == 0, found
    assert all(one["ok"] for one in found.value)


def test_a_training_over_hosts_whose_names_mean_loopback(
    cluster: Cluster, undisturbed: str
) -> None:
    """Workers meet at the address by which Ray knows their node, not at their host's name."""
    shown = ended(cluster, undisturbed)
    assert reasons(shown) == [None]
    nodes = {node["node_id"]: node["host"] for node in cluster.ddpmctl("nodes").value["nodes"]}
    assert sorted(nodes.values()) == [HEAD, "worker-1", "worker-2"]
    assert sorted(nodes[one] for one in shown["attempts"][0]["node_ids"]) == [
        "worker-1",
        "worker-2",
    ]


def test_a_host_cut_off_in_mid_work_costs_no_finished_step(
    cluster: Cluster, undisturbed: str
) -> None:
    """The attempt ends as NODE_LOST; with the host back it goes on and ends with the same bits."""
    job_id = cluster.submit(train_text("cut-off", steps=_STEPS, every=_EVERY, workers=2))
    wait_for_step(cluster, job_id, _EVERY)
    cluster.network.cut("worker-2")
    wait_until(lambda: reasons(status(cluster, job_id)) == ["NODE_LOST"])
    cluster.network.join("worker-2")
    cluster.wait_for_end("worker-2")
    cluster.restart("worker-2")
    shown = ended(cluster, job_id)
    assert reasons(shown) == ["NODE_LOST", None]
    assert shown["attempts"][0]["progress"] >= _EVERY
    told = [event["message"] for event in cluster.ddpmctl("events", job_id).value]
    assert f"goes on from step {shown['attempts'][0]['progress']}" in told
    assert final_weights(cluster, job_id) == final_weights(cluster, undisturbed)


def test_the_orchestrator_lives_on_the_head(cluster: Cluster, undisturbed: str) -> None:
    """A worker's host may leave at any time; without the head there is no cluster."""
    assert leader(cluster) == HEAD
