"""Ports on loopback that nobody listens on."""

import socket
import time
from collections.abc import Iterable, Mapping
from random import SystemRandom

from orchestrator.errors import StackError

LOOPBACK = "127.0.0.1"
# Below what the kernel hands out to outgoing connections, so that a remembered port stays free.
_LOWEST, _HIGHEST = 20_000, 32_000
_TRIES = 2_000
_PATIENCE_S = 2.0  # a process that was just killed lets go of its ports a little later
_POLL_S = 0.05


def is_free(port: int) -> bool:
    """Tell whether a server could listen on a port of loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose_ports(
    names: Iterable[str], remembered: Mapping[str, int], avoided: Iterable[int] = ()
) -> dict[str, int]:
    """Return a free port for each name: the remembered one where nobody took it meanwhile.

    A remembered port that is taken is waited for a moment, since its last owner may be dying.

    Args:
        names: What the ports are for.
        remembered: Ports that some of the names had before.
        avoided: Ports that are meant for others, though nobody may listen on them yet.

    Raises:
        StackError: No port is free.
    """
    chosen: dict[str, int] = {}
    taken = {*avoided, *remembered.values()}
    deadline = time.monotonic() + _PATIENCE_S
    for name in names:
        port = remembered.get(name)
        if port is None or not _is_free_before(deadline, port):
            port = _free_port(taken)
            taken.add(port)
        chosen[name] = port
    return chosen


def _is_free_before(deadline: float, port: int) -> bool:
    while not (free := is_free(port)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return free


def _free_port(taken: set[int]) -> int:
    random = SystemRandom()
    for _ in range(_TRIES):
        port = random.randint(_LOWEST, _HIGHEST)
        if port not in taken and is_free(port):
            return port
    raise StackError(f"no free port between {_LOWEST} and {_HIGHEST} on {LOOPBACK}")
