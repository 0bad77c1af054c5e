"""Hosts on one machine: each has a network, mounts, processes and a name of its own.

A host is the first process of its namespaces and reads from a pipe that we hold. Killing it ends
all that runs in the host, as a power cut does; so does our own death, since the pipe is closed
then. Nothing is left: namespaces, links and mounts go with their last process.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

ROOT = Path(__file__).resolve().parents[2]
NETWORK = "10.77.0"
BRIDGE_ADDRESS = f"{NETWORK}.254"
LOOPBACK_NAME_ADDRESS = "127.0.1.1"  # what Debian and Ubuntu write for a machine's own name
_OWN = ("--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
_TOOLS = ("unshare", "nsenter", "mount", "ip")
_TMP = Path("/tmp")
_START_TIMEOUT_S = 20.0

# /tmp and /dev/shm are the host's own; what of the code lies below /tmp stays visible.
_FIRST_PROCESS = """
set -e
mount -t tmpfs -o size=3g,mode=1777 tmp "$STAGE"
for kept in $KEPT; do
  mkdir -p "$STAGE/${kept#/tmp/}"
  mount --rbind "$kept" "$STAGE/${kept#/tmp/}"
done
mount --move "$STAGE" /tmp
mount -t tmpfs -o size=1g,mode=1777 shm /dev/shm
mkdir /tmp/home
printf '%s' "$HOSTS" > /tmp/.hosts
mount --bind /tmp/.hosts /etc/hosts
if [ -e /etc/resolv.conf ]; then : > /tmp/.resolv; mount --bind /tmp/.resolv /etc/resolv.conf; fi
hostname "$NAME"
ip link set lo up
trap '' CHLD
echo ready
exec cat
"""

_GET = """
import json, sys, urllib.error, urllib.request
asked = urllib.request.Request(sys.argv[1], headers=json.loads(sys.argv[2]))
try:
    print(urllib.request.urlopen(asked, timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    print(0)
"""


def why_not() -> str:
    """Say why hosts cannot be made on this machine; "" if they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "namespaces need root on Linux"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} missing: apt-get install iproute2 util-linux mount"
    trial = "mount -t tmpfs none /mnt && ip link add trial type veth && ip link add b0 type bridge"
    command = ["unshare", *_OWN, "sh", "-c", trial]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"namespaces cannot be made: {tried.stderr.strip()}"


def _kept() -> list[str]:
    """Return the folders below /tmp that hold the code, if it lies there."""
    wanted = {ROOT, Path(sys.prefix), Path(sys.base_prefix), *map(Path, sys.path)}
    below = sorted({str(path) for path in wanted if _TMP in path.parents and path.is_dir()})
    return [path for path in below if not any(path.startswith(f"{one}/") for one in below)]


class Process:
    """What was started in a host.

    Attributes:
        pid: As this machine counts, outside of the host.
        log: The file that holds its output.
    """

    def __init__(self, entered: "subprocess.Popen[bytes]", log: Path) -> None:
        self._entered = entered
        self.log = log
        self.pid = _only_child(entered.pid)

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._entered.poll() is None

    @property
    def text(self) -> str:
        """What it said so far."""
        return self.log.read_text("utf-8", errors="replace")

    def find(self, *words: str) -> psutil.Process:
        """Return the one process below it whose command line holds the words."""
        below = psutil.Process(self.pid).children(recursive=True)
        (found,) = [p for p in below if all(word in " ".join(p.cmdline()) for word in words)]
        return found

    def ask_to_end(self) -> None:
        """Send SIGTERM to it alone."""
        psutil.Process(self.pid).terminate()

    def kill(self) -> None:
        """End it and all that it started, as a crash does."""
        leader = psutil.Process(self.pid)
        family = [leader, *leader.children(recursive=True)]
        for process in family:
            if process.is_running():
                process.kill()
        psutil.wait_procs(family, timeout=10)
        self.collect()

    def collect(self) -> None:
        """Wait until it has ended."""
        self._entered.wait(10)


class Host:
    """One host, from its start until `kill`."""

    def __init__(self, name: str, hosts: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._started: list[Process] = []
        stage = tempfile.mkdtemp(prefix="stage-", dir=_TMP)
        settings = {"STAGE": stage, "KEPT": " ".join(_kept()), "HOSTS": hosts, "NAME": name}
        self._unshared = _unshare(_OWN, ("sh", "-c", _FIRST_PROCESS), {**os.environ, **settings})
        self.pid = _only_child(self._unshared.pid)
        Path(stage).rmdir()  # its mount has moved to the host's /tmp

    @property
    def is_alive(self) -> bool:
        """Whether it has not been killed."""
        return self._unshared.poll() is None

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: str) -> Process:
        """Start a process in the host; its output goes into a file outside of it.

        Args:
            command: Program and arguments.
            environment: All of its environment.
            log: The file's name.
        """
        self._started = [one for one in self._started if one.is_alive]
        path = self._folder / f"{log}.log"
        with path.open("ab") as output:
            entered = subprocess.Popen(
                self.inside(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(Process(entered, path))
        return self._started[-1]

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        stdin: str = "",
        timeout_s: float = 300.0,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in the host to its end."""
        return subprocess.run(
            self.inside(command),
            env=dict(environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def write(self, path: str, text: str) -> None:
        """Write a file that only the owner reads."""
        script = 'umask 077 && mkdir -p "$(dirname "$0")" && cat > "$0"'
        self.run(("sh", "-c", script, path), os.environ, stdin=text).check_returncode()

    def kill(self) -> None:
        """End the host at once with all that runs in it."""
        if psutil.pid_exists(self.pid) and self.is_alive:
            psutil.Process(self.pid).kill()
        _close(self._unshared)
        for process in self._started:
            process.collect()

    def inside(self, command: Sequence[str]) -> tuple[str, ...]:
        """Return the command that runs another one in the host."""
        flags = ("--net", "--mount", "--uts", "--pid")
        return ("nsenter", f"--target={self.pid}", *flags, "--", "env", "-C", "/tmp", *command)


class Network:
    """A bridge in a namespace of its own, and the hosts on it by their names.

    Args:
        names: Of all hosts that there may ever be; each has one address for good.
        folder: Takes what processes of hosts say.
        aliases: More names for some of them.
    """

    def __init__(
        self, names: Sequence[str], folder: Path, aliases: Mapping[str, str] | None = None
    ) -> None:
        self._names = tuple(names)
        self._aliases = dict(aliases or {})
        self._folder = folder
        self.hosts: dict[str, Host] = {}
        self._switch = _unshare(("--net",), ("sh", "-c", "echo ready; exec cat"), os.environ)
        self._ip("link", "add", "bridge", "type", "bridge")
        self._ip("addr", "add", f"{BRIDGE_ADDRESS}/24", "dev", "bridge")
        self._ip("link", "set", "bridge", "up")

    @property
    def switch_pid(self) -> int:
        """A process that is in the bridge's namespace."""
        return self._switch.pid

    def address(self, name: str) -> str:
        """Return the address of a host."""
        return f"{NETWORK}.{self._names.index(name) + 1}"

    def host(self, name: str, *, own_name: str = "", own_address: str = "") -> Host:
        """Start a host.

        Args:
            name: What others call it.
            own_name: What it calls itself; by default the same.
            own_address: What its own name means to itself; by default what it means to others.
        """
        told = own_name or name
        host = Host(told, self._hosts_file(name, told, own_address), self._folder)
        self.hosts[name] = host
        port = f"port{self._names.index(name)}"
        self._in_switch("sh", "-c", f"ip link del {port} 2>/dev/null || true")  # of its last life
        peer = ("peer", "name", "eth0", "netns", str(host.pid))
        self._ip("link", "add", port, "type", "veth", *peer)
        self._ip("link", "set", port, "master", "bridge", "up")
        inside = f"ip addr add {self.address(name)}/24 dev eth0 && ip link set eth0 up"
        route = f"ip route add default via {BRIDGE_ADDRESS}"
        host.run(("sh", "-c", f"{inside} && {route}"), os.environ).check_returncode()
        return host

    def cut(self, name: str) -> None:
        """Take a host off the network, both ways, as a pulled cable does."""
        self._ip("link", "set", f"port{self._names.index(name)}", "down")

    def join(self, name: str) -> None:
        """Put a host back on the network."""
        self._ip("link", "set", f"port{self._names.index(name)}", "up")

    def slow(self, name: str, rate: str) -> None:
        """Let no more through to a host than a rate, such as `20mbit`."""
        shape = ("root", "tbf", "rate", rate, "burst", "32kbit", "latency", "400ms")
        self._in_switch("tc", "qdisc", "add", "dev", f"port{self._names.index(name)}", *shape)

    def status(self, url: str, **headers: str) -> int:
        """Return what a GET from outside of all hosts is answered with, 0 for no answer."""
        done = self._in_switch(sys.executable, "-c", _GET, url, json.dumps(headers))
        return int(done.stdout)

    def close(self) -> None:
        """End all hosts and the network."""
        for host in self.hosts.values():
            host.kill()
        self.hosts.clear()
        self._switch.kill()
        _close(self._switch)

    def _hosts_file(self, name: str, told: str, own_address: str) -> str:
        lines = ["127.0.0.1 localhost", f"{own_address or self.address(name)} {told}"]
        for one in self._names:
            others = (name for name in (one, self._aliases.get(one, "")) if name != told)
            lines += [f"{self.address(one)} {other}" for other in others if other]
        return "\n".join(lines) + "\n"

    def _ip(self, *words: str) -> None:
        self._in_switch("ip", *words)

    def _in_switch(self, *words: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            ["nsenter", f"--target={self._switch.pid}", "--net", "--", *words],
            check=True,
            capture_output=True,
            timeout=_START_TIMEOUT_S,
        )


def _unshare(
    flags: Sequence[str], command: Sequence[str], environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """Start the first process of new namespaces; return when it is ready."""
    process = subprocess.Popen(
        ["unshare", *flags, *command],
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # some versions tell of a signal mask that does not matter
    )
    told: IO[bytes] | None = process.stdout
    if told is None or told.readline() != b"ready\n":
        process.kill()
        raise RuntimeError(f"no namespaces: {' '.join(flags)} came to {process.wait()}")
    return process


def _only_child(pid: int) -> int:
    """Return the process that another one forked to run a command in other namespaces."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not (children := psutil.Process(pid).children()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} started nothing")
        time.sleep(0.01)
    return children[0].pid


def _close(process: "subprocess.Popen[bytes]") -> None:
    process.wait(10)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
