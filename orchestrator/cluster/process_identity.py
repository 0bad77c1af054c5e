"""Which process it was: its node, its machine's start, its pid and when it was born.

A pid is given away again, two machines or containers bear one host's name, and a machine starts
anew; together these four name a process for good. When it was born is said by a clock that nobody
sets.

psutil gives seconds since the epoch, counted from the wall clock: setting that, as after a machine
was suspended, would make every running process look like another one.
"""

import functools
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

BIRTH_TOLERANCE_S = 0.005  # half a tick of the kernel's clock


@functools.cache
def boot_id() -> str:
    """Return what names this start of the machine, and in a container that of the container."""
    parts = []
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def born_s(process: psutil.Process) -> float:
    """Return the seconds from the machine's start to a process's own.

    Raises:
        psutil.NoSuchProcess: It is gone.
    """
    # What the clock was set by cancels out. A new object, since each keeps its first answer.
    return psutil.Process(process.pid).create_time() - psutil.boot_time()


def is_as_old(process: psutil.Process, seconds: float) -> bool:
    """Tell whether a process was born so many seconds after the machine's start.

    Raises:
        psutil.NoSuchProcess: It is gone.
    """
    return abs(born_s(process) - seconds) <= BIRTH_TOLERANCE_S


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, distinguished from every other one.

    Attributes:
        pid: Its number.
        born_s: Seconds from the machine's start to its own.
        boot_id: Which start of the machine, and which container.
        node_id: The Ray node that it runs on; "" where there is none, or none is known.
    """

    pid: int
    born_s: float
    boot_id: str
    node_id: str = ""

    @classmethod
    def of(cls, process: psutil.Process, node_id: str = "") -> "ProcessIdentity":
        """Return the identity of a process of this machine. Raises: psutil.NoSuchProcess."""
        return cls(process.pid, born_s(process), boot_id(), node_id)

    @property
    def is_of_this_machine(self) -> bool:
        """Whether it can be looked for here: the same start of the machine, the same container."""
        return self.boot_id == boot_id()

    def find(self) -> psutil.Process | None:
        """Return the process if it is alive here; a zombie is not."""
        if not self.is_of_this_machine:
            return None
        try:
            process = psutil.Process(self.pid)
            if not is_as_old(process, self.born_s):
                return None
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        except psutil.NoSuchProcess:
            return None
