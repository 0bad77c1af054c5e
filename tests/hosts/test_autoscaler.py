"""A cluster without workers that grows for a gang and shrinks after it, by Ray's own autoscaler.

Its provider is Ray's fake one: it starts nodes as more raylets on the head's host. The autoscaler,
what it is asked for and what it is told to leave are real.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.cluster import HEAD, MLFLOW, STORE, Cluster
from tests.hosts.jobs import ended, reasons
from tests.hosts.user import CLI, wait_until
from tests.integration.commands import train_text

pytestmark = pytest.mark.hosts
_CONFIG_FILE = "/tmp/autoscaling.json"
_MOST = 2
_IDLE_S = 15
# ray.autoscaler._private.fake_multi_node.node_provider.FAKE_HEAD_NODE_ID
_HEAD_ID = "f" * 51 + "00000"
_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
_TYPES = [{"name": "small", "cpus": 1, "max_count": _MOST}]
_SETTINGS = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
    "DDPMCTL_NODE_TYPES": json.dumps(_TYPES),
}


def _config(gcs_address: str) -> dict[str, Any]:
    """What Ray's autoscaler may start, as _TYPES says it to the orchestrator."""
    return {
        "cluster_name": "grows",
        "max_workers": _MOST,
        "idle_timeout_minutes": _IDLE_S / 60,
        "provider": {
            # By its class: the defaults that go with its short name are not in Ray's wheel.
            "type": "external",
            "module": _PROVIDER,
            "gcs_address": gcs_address,
            "head_node_id": _HEAD_ID,
            "launch_multiple": True,
            "use_node_id_as_ip": True,  # all are on one host
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        # What a launcher over ssh would run; the autoscaler wants to be told that it is nothing.
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "small": {
                "resources": {"CPU": 1, "object_store_memory": 80_000_000},
                "node_config": {},
                "min_workers": 0,
                "max_workers": _MOST,
            },
        },
    }


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A head that takes no work, with an autoscaler; no worker."""
    made = Cluster(tmp_path)
    made.head_settings = _SETTINGS
    made.head_options = (*made.head_options, f"--autoscaling-config={_CONFIG_FILE}")
    try:
        for name in (STORE, MLFLOW, HEAD, CLI):
            made.boot(name)
        config = _config(f"{made.network.address(HEAD)}:6379")
        made.network.hosts[HEAD].write(_CONFIG_FILE, json.dumps(config))
        made.start_store()
        made.start_mlflow()
        made.start_head()
        yield made
    finally:
        made.close()


def _num_workers(cluster: Cluster) -> int:
    nodes = cluster.ddpmctl("nodes").value["nodes"]
    return len([node for node in nodes if node["cpus"]])


def _verdict(cluster: Cluster, job_id: str) -> str:
    return str(cluster.ddpmctl("explain", job_id).value.get("verdict"))


def test_a_gang_brings_its_nodes_and_they_go_after_it(cluster: Cluster) -> None:
    """From no worker to two and back; what no nodes could ever hold is told at once."""
    never = cluster.submit(train_text("three", workers=_MOST + 1))
    wait_until(lambda: _verdict(cluster, never) == "never")
    assert cluster.ddpmctl("cancel", never).exit_code == 0

    answer = cluster.ddpmctl("submit", "-", stdin=train_text("gang", workers=_MOST))
    assert "waits for nodes to start" in answer.stderr, answer
    job_id = answer.value["job_id"]
    shown = ended(cluster, job_id)
    assert reasons(shown) == [None]
    assert len(set(shown["attempts"][0]["node_ids"])) == _MOST

    wait_until(lambda: _num_workers(cluster) == 0)
    shown = ended(cluster, cluster.submit(train_text("after")))  # it grows once more, for one alone
    assert reasons(shown) == [None]
    assert _num_workers(cluster) == 1
