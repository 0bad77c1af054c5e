"""What nobody foresaw: one line for the user, and a file with the rest for a report."""

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

_MAX_TEXT = 300
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def describe(error: BaseException, arguments: Sequence[str]) -> str:
    """Return one line about an error that no sentence was written for.

    Args:
        error: Of the operating system, a library, or our own fault.
        arguments: Of the command line, for the report.
    """
    if isinstance(error, OSError) and error.errno in _FULL and not error.filename:
        return f"cannot write standard output: {os.strerror(error.errno).lower()}"
    path = _report(error, arguments)
    seen = f"; for a report see {path}" if path else ""
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror[:1].lower()}{error.strerror[1:]}{seen}"
    text = " ".join(str(error).split())[:_MAX_TEXT]
    return f"{type(error).__name__}: {text} (a fault of ddpmctl, or of what it builds on){seen}"


def _report(error: BaseException, arguments: Sequence[str]) -> str | None:
    """Write the traceback into a file of its own, and return its path; None where that fails."""
    import platform  # these, and the version's, take longer than all of `--help`
    import tempfile
    import traceback

    lines = [
        f"ddpmctl {_version()} on Python {platform.python_version()}, {platform.platform()}\n",
        f"arguments: {list(arguments)!r}\n\n",
        *traceback.format_exception(error),
    ]
    with suppress(OSError):
        descriptor, path = tempfile.mkstemp(prefix="ddpmctl-report-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(lines)
        return path
    return None


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ddpmctl")
    except PackageNotFoundError:
        return "(not installed)"


def forgiving_streams() -> None:
    """Have characters that a terminal does not know escaped instead of raised."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """Send what is left for standard output nowhere: its reader is gone, or its disk is full."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
