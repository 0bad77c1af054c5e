"""How much memory a process took."""

from pathlib import Path


def peak_mb() -> float:
    """Return the most memory that this process had since its program started, in MB.

    `ru_maxrss` is no measure of a child's: it begins with what its parent had.
    """
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
