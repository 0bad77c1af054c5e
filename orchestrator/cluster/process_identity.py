"""When a process was born, by a clock that nobody sets: its pid and this name it for good.

psutil tells seconds since the epoch, reckoned from the wall clock: setting that, as after a machine
was suspended, would make every running process look like another one.
"""

import functools
from contextlib import suppress
from pathlib import Path

import psutil

BIRTH_TOLERANCE_S = 0.005  # half a tick of the kernel's clock


@functools.cache
def boot_id() -> str:
    """Return what names this start of the machine, and in a container that of the container."""
    found = []
    with suppress(OSError):
        found.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip())
    with suppress(OSError):
        found.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(found)


def born_s(process: psutil.Process) -> float:
    """Return the seconds from the machine's start to a process's own.

    Raises:
        psutil.NoSuchProcess: It is gone.
    """
    # What the clock was set by cancels out. A new object, since each keeps its first answer.
    return psutil.Process(process.pid).create_time() - psutil.boot_time()
