"""The Ray head of the embedded stack: on loopback alone, and with a token."""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from orchestrator.cluster.process_memory import MEMORY_SETTINGS
from orchestrator.stack.files import StackFolder, StackSecrets
from orchestrator.stack.limits import has_less_than_one_cpu
from orchestrator.stack.parts import Part, http_get
from orchestrator.stack.ports import LOOPBACK
from orchestrator.stack.ray_start import PATIENCE_VARIABLE

_OPTION_OF_PORT = {
    "ray.gcs": "--port",
    "ray.dashboard": "--dashboard-port",
    "ray.agent": "--dashboard-agent-listen-port",
    "ray.agent.grpc": "--dashboard-agent-grpc-port",
    "ray.runtime_env": "--runtime-env-agent-port",
    "ray.client": "--ray-client-server-port",
    "ray.node": "--node-manager-port",
    "ray.objects": "--object-manager-port",
    "ray.metrics": "--metrics-export-port",
}
_VARIABLE_OF_PORT = {
    "ray.autoscaler_metrics": "AUTOSCALER_METRIC_PORT",
    "ray.dashboard_metrics": "DASHBOARD_METRIC_PORT",
}
RAY_PORTS = (*_OPTION_OF_PORT, *_VARIABLE_OF_PORT)
_FIXED_OPTIONS = (
    "--head",
    "--block",  # stays our child, so that it is known whom to end
    f"--node-ip-address={LOOPBACK}",
    f"--dashboard-host={LOOPBACK}",
    "--disable-usage-stats",
    "--object-store-memory=400000000",
    "--min-worker-port=0",  # any free port: two heads on a machine must not hand out the same
    "--max-worker-port=0",
)
_FIXED_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # otherwise it listens on every interface
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_JOB_STOP_WAIT_TIME_S": "30",
    "RAY_DEDUP_LOGS": "0",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # no other node could take over
    **MEMORY_SETTINGS,
}
_KEPT_SESSIONS = 2


def ray_url(ports: Mapping[str, int]) -> str:
    """Return the address of the dashboard and the Jobs API."""
    return f"http://{LOOPBACK}:{ports['ray.dashboard']}"


def ray_access(folder: StackFolder, ports: Mapping[str, int]) -> dict[str, str]:
    """Return the variables by which a client finds the Jobs API and is let in."""
    return {
        "RAY_ADDRESS": ray_url(ports),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder.ray_token),
    }


def ray_part(
    folder: StackFolder,
    secrets: StackSecrets,
    ports: Mapping[str, int],
    shared: Mapping[str, str],
    *,
    num_cpus: int | None,
    num_gpus: int | None,
) -> Part:
    """Describe the Ray head.

    Args:
        folder: Of the stack.
        secrets: Of the stack.
        ports: By name.
        shared: The variables of the store and of MLflow, which every job inherits.
        num_cpus: Logical CPUs; as many as there are, if None.
        num_gpus: Logical GPUs; as many as there are, if None.
    """
    listens = [f"{option}={ports[name]}" for name, option in _OPTION_OF_PORT.items()]
    sessions = folder.sockets / "ray"
    return Part(
        name="ray",
        command=(
            sys.executable,
            "-P",
            "-m",
            "orchestrator.stack.ray_start",
            "start",
            *_FIXED_OPTIONS,
            f"--temp-dir={sessions}",
            *listens,
            *_sizes(num_cpus, num_gpus),
        ),
        settings={
            **shared,
            **_FIXED_SETTINGS,
            **{variable: str(ports[name]) for name, variable in _VARIABLE_OF_PORT.items()},
            "RAY_AUTH_TOKEN_PATH": str(folder.ray_token),
            "RAY_API_SERVER_ADDRESS": ray_url(ports),
        },
        inherits=True,
        folder=folder.root,
        ports=tuple(ports[name] for name in RAY_PORTS),
        prepare=lambda: _drop_old_sessions(sessions),
        is_ready=lambda: _has_a_node(ports["ray.dashboard"], secrets.ray_token),
        patience_variables=(PATIENCE_VARIABLE,),
    )


def _sizes(num_cpus: int | None, num_gpus: int | None) -> list[str]:
    if num_cpus is None and has_less_than_one_cpu():
        num_cpus = 1  # Ray would count none, and no job could ever start
    sizes = {"--num-cpus": num_cpus, "--num-gpus": num_gpus}
    return [f"{option}={number}" for option, number in sizes.items() if number is not None]


def _drop_old_sessions(sessions: Path) -> None:
    folders = sorted(p for p in sessions.glob("session_2*") if p.is_dir() and not p.is_symlink())
    for session in folders[: -_KEPT_SESSIONS + 1]:
        shutil.rmtree(session, ignore_errors=True)


def _has_a_node(port: int, token: str) -> bool:
    if http_get(port, "/api/jobs/", token)[0] != 200:
        return False
    status, body = http_get(port, "/nodes?view=summary", token)
    if status != 200:
        return False
    nodes = json.loads(body)["data"]["summary"]
    return any(node["raylet"].get("state") == "ALIVE" for node in nodes)
