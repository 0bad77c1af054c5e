"""Pods on hosts, as a kubelet starts what KubeRay's operator made of infra/kubernetes.

A pod is a host. Its container is the first process of its own, of a user without rights, with the
command, the environment and the volumes that the rendered objects and the operator give it; the
image is this machine. Who uses the cluster reaches it through forwarded ports alone.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.hosts.namespaces import ROOT, Host, Network, Process
from tests.hosts.user import CLI, User, wait_until, with_programs
from tests.support.kuberay import DASHBOARD_PORT, HEALTH_PATH, Applied, Container, RayPod
from tests.support.kustomize import rendered

CLUSTER = "ddpmctl"
STORE, MLFLOW, HEAD = "ddpmctl-store", "ddpmctl-mlflow", "ddpmctl-head-svc"
WORKERS = ("worker-1", "worker-2")
FORWARDED = {8333: STORE, 5000: MLFLOW, DASHBOARD_PORT: HEAD}
USER_ID = 1000
_TOKEN_FILE = "/tmp/ray-token"
_IMAGES_HOME = "/tmp/user"
# A volume of the pod is a folder below its /tmp; /dev/shm and /tmp are its own already.
_DATA = "/tmp/data"
_VOLUMES = f"""
install -d -o {USER_ID} -g {USER_ID} {_IMAGES_HOME}
install -d -m 2775 -o 0 -g {USER_ID} {_DATA}
install -d -m 2777 -o 0 -g {USER_ID} /tmp/ray
"""
# A folder that others may not enter, such as /root, is replaced by one with our programs alone.
_OPEN = """
mount -t tmpfs -o mode=755 kept /mnt
for kept in $KEPT; do mkdir -p "/mnt$kept"; mount --bind "$kept" "/mnt$kept"; done
mount -t tmpfs -o mode=755 open "$CLOSED"
for kept in $KEPT; do mkdir -p "$kept"; mount --bind "/mnt$kept" "$kept"; done
"""
_FIRST = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
_NO_RIGHTS = (
    "setpriv",
    f"--reuid={USER_ID}",
    f"--regid={USER_ID}",
    "--clear-groups",
    "--no-new-privs",
    "--bounding-set=-all",
    "--inh-caps=-all",
)
_FORWARD = """
import asyncio, json, sys

async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()

def to(name, port):
    async def joined(reader, writer):
        try:
            there, back = await asyncio.open_connection(name, port)
        except OSError:
            return writer.close()
        await asyncio.gather(pump(reader, back), pump(there, writer))
    return joined

async def main():
    for port, name in json.loads(sys.argv[1]).items():
        await asyncio.start_server(to(name, int(port)), "127.0.0.1", int(port))
    print("forwarding", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Pods(User):
    """The pods of one overlay, and a host whose ports are forwarded to them.

    Args:
        folder: Takes what containers say.
        secrets: Values by key, by the secret's name.
    """

    def __init__(self, folder: Path, secrets: Mapping[str, Mapping[str, str]]) -> None:
        overlay = ROOT / "infra/kubernetes/overlays/store-seaweedfs"
        self.applied = Applied(rendered(overlay), secrets)
        names = (STORE, MLFLOW, HEAD, *WORKERS, CLI)
        self.network = Network(names, folder, {HEAD: self.applied.head_name(CLUSTER)})
        self.started: dict[str, Process] = {}
        self._secrets = secrets

    def close(self) -> None:
        """End all pods."""
        self.network.close()

    def start_all_but_ray(self) -> None:
        """Start the store, once its first container has ended well, MLflow and the user's host."""
        store = self._boot(STORE, f"{STORE}-0")
        first = self.applied.container("StatefulSet", STORE, init=True)
        self._end(store, first)
        self._start(STORE, self.applied.container("StatefulSet", STORE))
        self._wait_for_probe(STORE, self.applied.probe("StatefulSet", STORE))
        self._boot(MLFLOW, f"{MLFLOW}-7d9c-xk2lp")
        self._start(MLFLOW, self.applied.container("Deployment", MLFLOW))
        self._wait_for_probe(MLFLOW, self.applied.probe("Deployment", MLFLOW))
        user = self.network.host(CLI)
        user.write(_TOKEN_FILE, self._secrets["ddpmctl-ray-token"]["auth_token"])

    def start_head(self) -> RayPod:
        """Start the head's pod; return it when its probe is content."""
        pod = self.applied.head(CLUSTER)
        self._boot(HEAD, pod.name)
        self._start(HEAD, pod.ray)
        wait_until(lambda: self.health(HEAD, pod) == 200)
        return pod

    def start_worker(self, host: str, number: int) -> RayPod:
        """Start a worker's pod, once its first container has ended well, as for the head."""
        pod = self.applied.worker(CLUSTER, "cpu", number)
        made = self._boot(host, pod.name)
        assert pod.first is not None
        assert "GCS is ready." in self._end(made, pod.first)
        self._start(host, pod.ray)
        wait_until(lambda: self.health(host, pod) == 200)
        return pod

    def health(self, host: str, pod: RayPod) -> int:
        """Return what a kubelet is answered when it asks for health."""
        return self.network.status(f"{self._url(host, pod.health_port)}{HEALTH_PATH}")

    def ray_status(self, **headers: str) -> int:
        """Return what Ray's list of jobs is answered with."""
        return self.network.status(f"{self._url(HEAD, DASHBOARD_PORT)}/api/jobs/", **headers)

    def forward(self) -> None:
        """Forward ports of the user's own loopback, as `kubectl port-forward` does."""
        told = "{" + ", ".join(f'"{port}": "{name}"' for port, name in FORWARDED.items()) + "}"
        command = (sys.executable, "-c", _FORWARD, told)
        forwarding = self.network.hosts[CLI].start(command, with_programs({}), "forward")
        wait_until(lambda: "forwarding" in forwarding.text)

    def evict(self, host: str, pod: RayPod) -> None:
        """End a pod as a kubelet does: SIGTERM to its first process, which must end in time."""
        container = self.started[host]
        (first,) = psutil.Process(container.pid).children()
        first.terminate()
        wait_until(lambda: not container.is_alive, float(pod.grace_s))
        self.network.hosts[host].kill()

    def environment(self) -> dict[str, str]:
        """Return what a user has set, as infra/kubernetes/README.md says."""
        store = self._secrets["ddpmctl-store"]
        return with_programs(
            {
                "RAY_ADDRESS": f"http://127.0.0.1:{DASHBOARD_PORT}",
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": _TOKEN_FILE,
                "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
                **self._secrets["ddpmctl-mlflow"],
                "DDPMCTL_STORE": "s3://ddpmctl/store",
                "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:8333",
                "AWS_REGION": "us-east-1",
                **store,
            }
        )

    def _url(self, host: str, port: int) -> str:
        return f"http://{self.network.address(host)}:{port}"

    def _boot(self, host: str, own_name: str) -> Host:
        made = self.network.host(host, own_name=own_name)
        made.run(("sh", "-ec", _VOLUMES), with_programs({})).check_returncode()
        for closed, kept in closed_folders().items():
            settings = with_programs({"CLOSED": closed, "KEPT": " ".join(kept)})
            made.run(("sh", "-ec", _OPEN), settings).check_returncode()
        return made

    def _start(self, host: str, container: Container) -> None:
        command = (*_FIRST, *_NO_RIGHTS, *_inside(container.command))
        environment = _images(container)
        self.started[host] = self.network.hosts[host].start(command, environment, host)

    def _wait_for_probe(self, name: str, probe: Container) -> None:
        host, command = self.network.hosts[name], _inside(probe.command)
        wait_until(lambda: host.run(command, _images(probe)).returncode == 0)

    def _end(self, host: Host, container: Container) -> str:
        """Run a container to its end, which must be well; return what it says."""
        done = host.run((*_FIRST, *_NO_RIGHTS, *_inside(container.command)), _images(container))
        assert done.returncode == 0, done.stderr
        return done.stdout


def closed_folders() -> dict[str, list[str]]:
    """Return the outermost folders above our code that others may not enter, each with our own."""
    wanted = {ROOT, Path(sys.prefix), Path(sys.base_prefix), *map(Path, sys.path)}
    found: dict[str, list[str]] = {}
    for path in sorted(path for path in wanted if path.is_dir()):
        closed = [one for one in (*reversed(path.parents), path) if not one.stat().st_mode & 1]
        if closed and path not in closed:
            found.setdefault(str(closed[0]), []).append(str(path))
    return found


def _inside(command: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_own_folder(word) for word in command)


def _images(container: Container) -> dict[str, str]:
    environment = {"HOME": _IMAGES_HOME, "USER": "ddpmctl", **container.environment}
    return with_programs({name: _own_folder(value) for name, value in environment.items()})


def _own_folder(text: str) -> str:
    return re.sub(r"(?<!\w)/data\b", _DATA, text)
