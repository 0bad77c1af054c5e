"""What the system lets the stack have: open files, processes, and processors."""

import os
import resource
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from orchestrator.errors import StackError

_FILES_WANTED, _FILES_NEEDED = 65_536, 1024
_THREADS_NEEDED = 800  # with nothing to do it has some 520
_PIDS = (Path("/sys/fs/cgroup/pids.max"), Path("/sys/fs/cgroup/pids/pids.max"))
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_OLD_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
_OLD_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def allow_open_files() -> None:
    """Have this process and its children open as many files as the system lets them.

    Store and Ray open some hundreds each, and fail in odd places where they may not.

    Raises:
        StackError: The system lets them open too few.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, _FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft != resource.RLIM_INFINITY and soft < _FILES_NEEDED:
        raise StackError(
            f"a process may open {soft} files here, and the stack needs {_FILES_NEEDED}: raise the "
            "limit (`ulimit -Hn`, or the container's nofile)"
        )


def allow_processes(container: Sequence[Path] = _PIDS) -> None:
    """Have this user run as many processes and threads as the system lets them.

    Where Ray may start too few, its head waits for those that never come.

    Args:
        container: Where a container's own limit may stand: a number, or "max".

    Raises:
        StackError: The system lets them run too few.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
        soft = hard
    if os.getuid() and soft != resource.RLIM_INFINITY and soft < _THREADS_NEEDED:
        raise _too_few_threads("this user", soft, "`ulimit -Hu`")
    for path in container:
        with suppress(OSError, ValueError):  # no cgroups, or "max"
            if (most := int(path.read_text())) < _THREADS_NEEDED:
                raise _too_few_threads("this container", most, f"{path}; docker's --pids-limit")


def _too_few_threads(who: str, most: int, where: str) -> StackError:
    return StackError(
        f"{who} may run {most} processes and threads, and the stack needs {_THREADS_NEEDED}: "
        f"raise the limit ({where})"
    )


def has_less_than_one_cpu(
    quota: Path = _QUOTA, old_quota: Path = _OLD_QUOTA, old_period: Path = _OLD_PERIOD
) -> bool:
    """Tell whether this container has a part of a processor alone.

    Args:
        quota: "50000 100000", or "max 100000" (version 2 of cgroups).
        old_quota: Microseconds of a processor in each period; -1 for any (version 1).
        old_period: That period.
    """
    try:
        if quota.exists():
            given, period = quota.read_text().split()
        else:
            given, period = old_quota.read_text().strip(), old_period.read_text().strip()
        return given not in ("max", "-1") and int(given) < int(period)
    except (OSError, ValueError):
        return False  # no cgroups here, or none that we know
