"""The cluster launcher's file, checked by Ray's own schema and defaults."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from orchestrator.stack.files import StackFolder, StackSecrets
from orchestrator.stack.ray_head import RAY_PORTS, ray_part

ROOT = Path(__file__).resolve().parents[2]
CLUSTER: dict[str, Any] = YAML(typ="safe").load(
    (ROOT / "infra/ray-cluster/cluster.yaml").read_text("utf-8")
)


def test_file_fits_rays_schema() -> None:
    """`ray up` reads it with this very schema."""
    autoscaler = pytest.importorskip("ray.autoscaler")
    schema = Path(autoscaler.__file__).with_name("ray-schema.json").read_text("utf-8")
    jsonschema.validate(CLUSTER, json.loads(schema))


def test_file_stands_rays_own_preparation() -> None:
    """The schema allows combinations that the launcher then refuses."""
    launcher = pytest.importorskip("ray.autoscaler._private.util")
    prepared = launcher.prepare_config(copy.deepcopy(CLUSTER))
    launcher.validate_config(prepared)
    assert prepared["max_workers"] == len(CLUSTER["provider"]["worker_ips"])


def test_nodes_have_the_settings_of_the_code(tmp_path: Path) -> None:
    """A node that asks for no token is open to its whole network."""
    ports = dict.fromkeys(RAY_PORTS, 1)
    secrets = StackSecrets("id", "key", {}, "token", "token")
    part = ray_part(StackFolder(tmp_path), secrets, ports, {}, num_cpus=None, num_gpus=None)
    given = dict(
        option.removeprefix("--env=").split("=", 1)
        for option in CLUSTER["docker"]["run_options"]
        if option.startswith("--env=")
    )
    # Loopback alone would leave the workers out; other nodes can take over what a node that leaves
    # was doing; the rest are places of this machine.
    elsewhere = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"}
    elsewhere |= {"RAY_API_SERVER_ADDRESS"}
    elsewhere |= {"RAY_AUTH_TOKEN_PATH", "AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT"}
    assert {k: v for k, v in part.settings.items() if k not in elsewhere}.items() <= given.items()


def test_token_is_mounted_where_ray_looks_for_it() -> None:
    """Without the file Ray does not start."""
    options = CLUSTER["docker"]["run_options"]
    path = next(o for o in options if o.startswith("--env=RAY_AUTH_TOKEN_PATH=")).split("=")[2]
    assert f"--volume={path}:{path}:ro" in options


def test_dashboard_listens_on_loopback_alone() -> None:
    """The containers use the host's network: any other address would be the machine's own."""
    start = next(line for line in CLUSTER["head_start_ray_commands"] if "--head" in line)
    assert "--dashboard-host=127.0.0.1" in start
    assert "RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265" in start


def test_no_secret_stands_in_the_file() -> None:
    """It is committed, and `ray up` copies it to the head."""
    text = (ROOT / "infra/ray-cluster/cluster.yaml").read_text("utf-8")
    assert not re.search(r"(SECRET|TOKEN|ACCESS_KEY\w*)=(?!/)\S", text)
    assert not re.search(r"[0-9a-f]{32}", text)


def test_addresses_are_those_of_documentation() -> None:
    """Nobody's machine is reached by someone who did not edit the file (RFC 5737)."""
    provider = CLUSTER["provider"]
    for address in (provider["head_ip"], *provider["worker_ips"]):
        assert address.startswith("192.0.2.")
