"""A cluster on hosts, started from infra/compose.yaml: they share nothing but the network."""

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.hosts.infra_parts import CERTIFICATES, DATA, TOKEN_FILE, Part, read_part
from tests.hosts.namespaces import LOOPBACK_NAME_ADDRESS, Host, Network, Process
from tests.hosts.user import CLI, START_TIMEOUT_S, User, wait_until, with_programs

STORE, MLFLOW, HEAD = "store", "mlflow", "ray-head"
WORKERS = ("worker-1", "worker-2", "worker-3")
_SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "MLFLOW_TRACKING_TOKEN",
    "RAY_AUTH_TOKEN",
    "WEED_JWT_SIGNING_KEY",
    "WEED_JWT_SIGNING_READ_KEY",
    "WEED_JWT_FILER_SIGNING_KEY",
    "WEED_JWT_FILER_SIGNING_READ_KEY",
)
# By itself Ray takes a node for lost after 5 looks of 3 s, each with 10 s to answer.
QUICK_TO_NOTICE = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
}
# As infra/kubernetes/raycluster.yaml: the head runs no job's workers. One CPU a worker.
_HEAD_OPTIONS = ("--num-cpus=0",)
_WORKER_OPTIONS = ("--num-cpus=1",)
_FOLDERS = f"""
from pathlib import Path
from orchestrator.stack.certificates import write_certificates
for folder in ({DATA!r}, {CERTIFICATES!r}):
    Path(folder).mkdir(exist_ok=True)
if not any(Path({CERTIFICATES!r}).iterdir()):
    write_certificates(Path({CERTIFICATES!r}))
"""
_STORE_IS_READY = """
import boto3
s3 = boto3.client("s3", endpoint_url="http://127.0.0.1:8333", region_name="us-east-1")
s3.put_object(Bucket="ddpmctl", Key="ready", Body=b"ready")
s3.get_object(Bucket="ddpmctl", Key="ready")["Body"].read()
"""
# A node that ended without a word counts as living until Ray has missed it several times.
_NODES = """
import socket, time
from ray._raylet import GcsClient
from ray.core.generated.gcs_pb2 import GcsNodeInfo
deadline = time.monotonic() + {timeout_s}
seen, silent = -1, []

def answers(node):
    place = (node.node_manager_address, node.node_manager_port)
    try:
        socket.create_connection(place, timeout=2).close()
    except OSError:
        return False
    return True

while seen != {number} or silent:
    assert time.monotonic() < deadline, f"{{seen}} nodes live, not {number}; silent: {{silent}}"
    time.sleep(0.2)
    try:
        nodes = GcsClient(address="127.0.0.1:6379").get_all_node_info(timeout=5).values()
    except Exception:  # the head is still starting
        continue
    alive = [node for node in nodes if node.state == GcsNodeInfo.ALIVE]
    seen, silent = len(alive), [n.node_manager_address for n in alive if not answers(n)]
"""
_LOOK_AGAIN_S = 10.0


class Cluster(User):
    """The parts, each on a host of its own, and a host that has only the command line.

    Args:
        folder: Takes what the parts say.
        loopback_names: Hosts' own names mean 127.0.1.1 to themselves, as on Debian and Ubuntu.
    """

    def __init__(self, folder: Path, *, loopback_names: bool = True) -> None:
        self.head_settings: Mapping[str, str] = {}
        self.head_options: tuple[str, ...] = _HEAD_OPTIONS
        self.network = Network((STORE, MLFLOW, HEAD, *WORKERS, CLI), folder)
        self.parts: dict[str, Process] = {}
        self._own_address = LOOPBACK_NAME_ADDRESS if loopback_names else ""
        self._secrets = {name: secrets.token_hex(16) for name in _SECRETS}

    def up(self, num_workers: int, **head_settings: str) -> None:
        """Start all hosts and all parts; return when every node has joined.

        Args:
            num_workers: Hosts that take work.
            head_settings: More of the head's environment, also when it is started anew.
        """
        for name in (STORE, MLFLOW, HEAD, *WORKERS[:num_workers], CLI):
            self.boot(name)
        self.start_store()
        self.start_mlflow()
        self.head_settings = head_settings
        self.start_head()
        for name in WORKERS[:num_workers]:
            self.start_worker(name)
        self.wait_for_nodes(1 + num_workers)

    def close(self) -> None:
        """End everything."""
        self.network.close()

    def boot(self, name: str, *, own_name: str = "") -> Host:
        """Start a host with the token of the cluster and nothing else."""
        own_address = "" if name in (STORE, MLFLOW) else self._own_address
        host = self.network.host(name, own_name=own_name, own_address=own_address)
        host.write(TOKEN_FILE, self._secrets["RAY_AUTH_TOKEN"])
        return host

    def start_store(self, **settings: str) -> None:
        """Start the store as its service does; return when it keeps objects.

        Args:
            settings: In place of what the file sets; whoever waits for it has these too.
        """
        part = self._part(STORE, settings)
        self.python(STORE, _FOLDERS)
        self._start(STORE, part.command, part.environment)
        wait_until(lambda: self._can(STORE, _STORE_IS_READY, part.environment))

    def start_mlflow(self) -> None:
        """Start MLflow as its service does."""
        part = self._part(MLFLOW)
        self.python(MLFLOW, _FOLDERS)
        self._start(MLFLOW, part.command, part.environment)

    def start_head(self) -> None:
        """Start Ray's head as its service does; return when it can be joined."""
        part = self._part(HEAD, self.head_settings)
        self._start(HEAD, (*part.command, *self.head_options), part.environment)
        self.wait_for_nodes(1)

    def start_worker(self, name: str, **settings: str) -> None:
        """Start a node of Ray as its service does.

        Args:
            name: Of the host.
            settings: More of its environment.
        """
        part = self._part("ray-worker", settings)
        self._start(name, (*part.command, *_WORKER_OPTIONS), part.environment)

    def restart(self, name: str, *, own_name: str = "", **settings: str) -> None:
        """Start Ray on a host anew, as a container that ended is: nothing in it goes on.

        Args:
            name: Of the head or a worker.
            own_name: What the host calls itself from now on.
            settings: More of a worker's environment.
        """
        self.network.hosts[name].kill()
        self.boot(name, own_name=own_name)
        if name == HEAD:
            self.start_head()
        else:
            self.start_worker(name, **settings)

    def restart_ended(self) -> None:
        """Start each node anew whose Ray has ended, the head first; return when all are there.

        One that Ray gave up while it was cut off ends only some time after it is back.
        """
        nodes = [name for name in (HEAD, *WORKERS) if name in self.parts]

        def are_there() -> bool:
            for name in nodes:
                if not self.parts[name].is_alive:
                    self.restart(name)
            return not self._why_not(len(nodes), _LOOK_AGAIN_S)

        wait_until(are_there)

    def wait_for_end(self, name: str) -> None:
        """Wait until what was started on a host has ended by itself."""
        wait_until(lambda: not self.parts[name].is_alive)

    def wait_for_nodes(self, number: int) -> None:
        """Wait until Ray counts so many living nodes, and each of them answers."""
        why_not = self._why_not(number, START_TIMEOUT_S)
        assert not why_not, why_not

    def _why_not(self, number: int, timeout_s: float) -> str:
        """Return "" once Ray counts so many living nodes, or what it says after the time."""
        environment = with_programs(self._part(HEAD).environment)
        code = _NODES.format(number=number, timeout_s=timeout_s)
        done = self.network.hosts[HEAD].run((sys.executable, "-c", code), environment)
        return "" if done.returncode == 0 else done.stderr

    def ray(self, *words: str) -> str:
        """Run a command of Ray on the host that has only the command line."""
        done = self.network.hosts[CLI].run(("ray", *words), self.environment())
        return done.stdout + done.stderr

    def environment(self) -> dict[str, str]:
        """Return what a user of the cluster has set, as infra/README.md says."""
        return with_programs(
            {
                "DDPMCTL_STORE": "s3://ddpmctl/store",
                "AWS_ENDPOINT_URL_S3": f"http://{STORE}:8333",
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": self._secrets["AWS_ACCESS_KEY_ID"],
                "AWS_SECRET_ACCESS_KEY": self._secrets["AWS_SECRET_ACCESS_KEY"],
                "RAY_ADDRESS": f"http://{HEAD}:8265",
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": TOKEN_FILE,
                "MLFLOW_TRACKING_URI": f"http://{MLFLOW}:5000",
                "MLFLOW_TRACKING_TOKEN": self._secrets["MLFLOW_TRACKING_TOKEN"],
            }
        )

    def _can(self, name: str, code: str, environment: Mapping[str, str]) -> bool:
        command = (sys.executable, "-c", code)
        return not self.network.hosts[name].run(command, with_programs(environment)).returncode

    def _part(self, name: str, settings: Mapping[str, str] | None = None) -> Part:
        part = read_part(name, self._secrets)
        return Part(part.command, {**part.environment, **(settings or {})})

    def _start(self, name: str, command: tuple[str, ...], environment: Mapping[str, str]) -> None:
        host = self.network.hosts[name]
        self.parts[name] = host.start(command, with_programs(environment), name)
