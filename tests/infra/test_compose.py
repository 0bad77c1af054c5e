"""The compose file says what the code says, and opens nothing but loopback."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from orchestrator.stack.certificates import write_certificates
from orchestrator.stack.files import StackFolder, StackSecrets
from orchestrator.stack.mlflow_server import MLFLOW_PORTS, mlflow_part
from orchestrator.stack.parts import BUCKET, REGION, STORE_URI, Part
from orchestrator.stack.ray_head import RAY_PORTS, ray_part
from orchestrator.stack.seaweed import STORE_PORTS, store_part

INFRA = Path(__file__).resolve().parents[2] / "infra"
ROOT = INFRA.parent
SECRETS = StackSecrets("id", "key", {"WEED_JWT_SIGNING_KEY": "x"}, "ray", "mlflow")
PORTS = {name: 20_000 + i for i, name in enumerate((*STORE_PORTS, *RAY_PORTS, *MLFLOW_PORTS))}
REQUIRED = re.compile(r"\$\{([A-Z_]+):\?")


def _load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load((INFRA / name).read_text("utf-8"))
    return loaded


COMPOSE = _load("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def _options(words: list[str] | tuple[str, ...]) -> dict[str, str]:
    """Return `--name=value`, `--name value` and `-flag` of a command line by name."""
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            continue
        name, separator, value = word.partition("=")
        if not separator and name.startswith("--") and rest and not rest[0].startswith("-"):
            value = rest.pop(0)
        found[name] = value
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> StackFolder:
    """A folder that nothing is started in."""
    return StackFolder(tmp_path_factory.mktemp("stack"))


@pytest.fixture(scope="module")
def parts(folder: StackFolder) -> dict[str, Part]:
    """What `ddpmctl up` would start, by the name of the service that stands for it."""
    return {
        "store": store_part(folder, SECRETS, PORTS),
        "mlflow": mlflow_part(folder, SECRETS, PORTS, {}),
        "ray-head": ray_part(folder, SECRETS, PORTS, {}, num_cpus=None, num_gpus=None),
    }


PYTHON_OPTIONS = {"-c", "-m", "-P"}
# What is another in containers, and why it may be.
ELSEWHERE = {
    # The containers' network instead of loopback; each part's own ports; volumes, not folders.
    "store": {"-ip.bind", "-dir", "-filer.localSocket", "-s3.localSocket"}
    | {f"-{part}.port{kind}" for part in ("s3", "master", "volume", "filer", "admin")
       for kind in ("", ".grpc")},
    "mlflow": {"--host", "--port", "--backend-store-uri", "--allowed-hosts",
               "--cors-allowed-origins"},
    # A container has its own ports and its own address, so nothing of this can collide.
    "ray-head": {"--node-ip-address", "--dashboard-host", "--min-worker-port", "--max-worker-port",
                 "--temp-dir", "--port", "--dashboard-port", "--dashboard-agent-listen-port",
                 "--dashboard-agent-grpc-port", "--runtime-env-agent-port",
                 "--ray-client-server-port", "--node-manager-port", "--object-manager-port",
                 "--metrics-export-port"},
}  # fmt: skip


@pytest.mark.parametrize("name", ["store", "mlflow", "ray-head"])
def test_service_is_started_with_the_options_of_the_code(name: str, parts: dict[str, Part]) -> None:
    """Each of them closes something: an option that is missing here opens it again."""
    ours = {k: v for k, v in _options(parts[name].command).items() if k not in PYTHON_OPTIONS}
    theirs = _options(SERVICES[name]["command"])
    assert {k: v for k, v in ours.items() if k not in ELSEWHERE[name]} == {
        k: v for k, v in theirs.items() if k not in ELSEWHERE[name] | {"-bucket"}
    }


@pytest.mark.parametrize(
    ("name", "elsewhere"),
    [
        ("store", {"HOME", "GOMAXPROCS"}),  # there it has a machine, or limits, of its own
        ("mlflow", set()),
        # Loopback alone would leave the workers out; other nodes can take over what a node that
        # leaves was doing; ports cannot collide here.
        ("ray-head", {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
                      "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "RAY_API_SERVER_ADDRESS",
                      "RAY_AUTH_TOKEN_PATH", "AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT"}),
    ],
)  # fmt: skip
def test_service_has_the_settings_of_the_code(
    name: str, elsewhere: set[str], parts: dict[str, Part]
) -> None:
    """Tokens, signing keys, certificates and switches are the same ones."""
    theirs = SERVICES[name]["environment"]
    secret = {"id", "key", "x", "ray", "mlflow"}
    for key, value in parts[name].settings.items():
        if key in elsewhere:
            continue
        if value in secret:
            assert REQUIRED.match(theirs[key]), f"{key} must come from the environment"
        elif value.startswith("/"):
            assert Path(theirs[key]).name == Path(value).name
        else:
            assert theirs[key] == value, key


def test_bucket_region_and_store_are_those_of_the_code() -> None:
    """The same job files and commands work on either stack."""
    node = SERVICES["ray-head"]["environment"]
    assert node["DDPMCTL_STORE"] == STORE_URI
    assert node["AWS_REGION"] == REGION
    assert f"-bucket={BUCKET}" in SERVICES["store"]["command"]


def test_worker_is_set_up_like_the_head() -> None:
    """A node with other settings would not be let in, or would act differently."""
    differing = {"command", "depends_on", "ports", "healthcheck"}
    head, worker = (
        {k: v for k, v in SERVICES[name].items() if k not in differing}
        for name in ("ray-head", "ray-worker")
    )
    assert head == worker


def test_only_loopback_of_the_host_is_published() -> None:
    """Docker opens published ports past the host's firewall."""
    for name, service in SERVICES.items():
        assert service.get("network_mode") in (None, "none"), name
        for port in service.get("ports", []):
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), f"{name}: {port}"
    assert "ports" not in SERVICES["ray-worker"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_confined(name: str) -> None:
    """Jobs run the user's code."""
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in SERVICES[name]


def test_every_secret_comes_from_the_environment_and_is_demanded() -> None:
    """A default secret is no secret, and an empty one lets everybody in."""
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"SECRET|TOKEN$|ACCESS_KEY|JWT", key):
                assert REQUIRED.match(value), f"{name}: {key}"
    assert COMPOSE["secrets"]["ray_token"] == {"environment": "RAY_AUTH_TOKEN"}


def test_readme_makes_every_secret_that_is_demanded() -> None:
    """The recipe is the only place that tells a user which ones there are."""
    text = (INFRA / "compose.yaml").read_text("utf-8")
    recipe = (INFRA / "README.md").read_text("utf-8")
    demanded = {*REQUIRED.findall(text), "RAY_AUTH_TOKEN"}
    assert {name for name in demanded if not re.search(rf"\b{name}\b", recipe)} == set()


def test_env_file_is_not_committed() -> None:
    """It holds every secret of the stack."""
    assert {".env", "ray-token"} <= set((INFRA / ".gitignore").read_text().split())
    assert not (INFRA / "Dockerfile.dockerignore").read_text().startswith("!")


def test_services_networks_and_volumes_that_are_named_exist() -> None:
    """Compose refuses the whole file otherwise."""
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        for other, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]
        assert set(service.get("networks", [])) <= set(COMPOSE["networks"])
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        volumes = {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert volumes <= set(COMPOSE["volumes"])


def test_certificates_service_runs_code_that_works(tmp_path: Path) -> None:
    """Its command is Python in a string, which nothing else checks."""
    script = SERVICES["certificates"]["command"][2]
    code = shlex.split(script)[-1]
    compile(code, "compose.yaml", "exec")
    assert write_certificates.__name__ in code
    exec(code.replace("/certificates", str(tmp_path)))  # noqa: S102
    made = {path.name for path in tmp_path.iterdir()}
    used = {v for v in SERVICES["store"]["environment"].values() if v.startswith("/certificates/")}
    assert {Path(path).name for path in used} <= made


@pytest.mark.parametrize("name", ["store", "mlflow"])
def test_health_checks_compile(name: str) -> None:
    """A check that cannot run keeps the rest of the stack from starting."""
    compile(SERVICES[name]["healthcheck"]["test"][-1], "compose.yaml", "exec")


def test_gpu_file_changes_only_services_that_exist() -> None:
    """A misspelt service would be a new, empty one."""
    extra: Mapping[str, Any] = _load("compose.gpu.yaml")
    assert set(extra["services"]) <= set(SERVICES)


def test_every_path_exists() -> None:
    """The build must not fail on a file that was moved."""
    for service in SERVICES.values():
        context = (INFRA / service["build"]["context"]).resolve()
        assert context == ROOT
        assert (context / service["build"]["dockerfile"]).is_file()
