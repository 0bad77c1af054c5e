"""What KubeRay's operator starts from these files, and that its parts find one another."""

import re
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ruamel.yaml import YAML

from tests.support.kuberay import AGENT_PORT, DASHBOARD_PORT, Applied, RayPod, quantity, secrets_of
from tests.support.kustomize import rendered

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "infra" / "kubernetes"
CLUSTER = "ddpmctl"
FOLDERS = [FOLDER / "base", *sorted((FOLDER / "overlays").iterdir())]
SECRETS: dict[str, dict[str, str]] = {
    one["metadata"]["name"]: one["stringData"]
    for one in YAML(typ="safe").load_all((FOLDER / "secrets.example.yaml").read_text("utf-8"))
}


def _applied(folder: Path) -> Applied:
    return Applied(rendered(folder), SECRETS)


def _words(pod: RayPod) -> list[str]:
    """What Ray is started with, in order."""
    start = pod.ray.environment["KUBERAY_GEN_RAY_START_CMD"]
    assert pod.ray.command == (
        "/bin/bash",
        "-c",
        "--",
        f"ulimit -n ${{RAY_START_ULIMIT_OPEN_FILES:-65536}}; {start}",
    )
    return shlex.split(start)


def test_the_head_is_started_without_cpus_for_work() -> None:
    """By the operator's own line; its dashboard is reached from other pods."""
    assert _words(_applied(FOLDER / "base").head(CLUSTER)) == [
        "ray",
        "start",
        "--head",
        "--block",
        f"--dashboard-agent-listen-port={AGENT_PORT}",
        "--dashboard-host=0.0.0.0",
        "--memory=8589934592",
        "--metrics-export-port=8080",
        "--num-cpus=0",
    ]


@pytest.mark.parametrize(
    ("folder", "group", "own"),
    [
        ("base", "cpu", ["--memory=17179869184", "--num-cpus=4"]),
        ("overlays/gpu", "gpu", ["--memory=34359738368", "--num-cpus=8", "--num-gpus=1"]),
    ],
)
def test_a_worker_is_started_with_what_its_pod_may_use(
    folder: str, group: str, own: list[str]
) -> None:
    """Ray counts with the limits, so a pod without them would lend what it has not."""
    words = _words(_applied(FOLDER / folder).worker(CLUSTER, group))
    assert words[:3] == [
        "ray",
        "start",
        "--address=ddpmctl-head-svc.ddpmctl.svc.cluster.local:6379",
    ]
    told = [word for word in words if re.match("--(memory|num-)", word)]
    assert told == own


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_ray_knows_every_flag_that_it_is_started_with(folder: Path) -> None:
    """One that it does not know ends each pod at once, again and again."""
    from ray.scripts.scripts import start

    known = {flag for option in start.params for flag in (*option.opts, *option.secondary_opts)}
    applied = _applied(folder)
    for pod in (applied.head(CLUSTER), applied.worker(CLUSTER, "cpu")):
        told = {word.partition("=")[0] for word in _words(pod)[2:]}
        assert told <= known


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_what_the_operator_sets_and_what_the_files_set_agree(folder: Path) -> None:
    """A variable of both is the file's, and then the operator's parts do not find one another."""
    applied = _applied(folder)
    for pod in (applied.head(CLUSTER), applied.worker(CLUSTER, "cpu")):
        environment = pod.ray.environment
        assert environment["RAY_AUTH_TOKEN"] == SECRETS["ddpmctl-ray-token"]["auth_token"]
        head = f"http://{CLUSTER}-head-svc:{DASHBOARD_PORT}"
        assert environment["RAY_API_SERVER_ADDRESS"] == head
        assert environment["RAY_CLOUD_INSTANCE_ID"] == pod.name
        assert float(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]) < pod.grace_s


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_services_that_the_settings_name_are_there(folder: Path) -> None:
    """A name that resolves to nothing is found by the first job only."""
    objects = rendered(folder)
    services = {
        (one["metadata"]["name"], port["port"])
        for one in objects
        if one["kind"] == "Service"
        for port in one["spec"]["ports"]
    }
    (settings,) = [one["data"] for one in objects if one["kind"] == "ConfigMap"]
    named = {urlsplit(value) for value in settings.values() if value.startswith("http://")}
    operators = (f"{CLUSTER}-head-svc", DASHBOARD_PORT)
    assert {(url.hostname, url.port) for url in named} <= {*services, operators}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_secrets_that_pods_name_are_in_the_example(folder: Path) -> None:
    """A pod with a secret that there is not never starts."""
    text = (FOLDER / "README.md").read_text("utf-8")
    for name, key in secrets_of(rendered(folder)):
        if name == "ddpmctl-weed":  # random keys of one overlay
            assert name in text
        else:
            assert key is None or key in SECRETS[name]
            assert SECRETS[name]


@pytest.mark.parametrize(
    ("text", "number"),
    [("2", 2), (4, 4), ("500m", 1), ("1500m", 2), ("8Gi", 8 << 30), ("3M", 3_000_000)],
)
def test_quantities_are_read_as_kubernetes_does(text: Any, number: int) -> None:
    """Parts of a CPU count as a whole one."""
    assert quantity(text) == number
