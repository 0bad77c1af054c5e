"""Which code runs: a hash over the sources of both packages, and the git commit if there is one."""

import functools
import hashlib
import importlib.util
import subprocess
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("ddpm", "orchestrator")
_SOURCE_SUFFIXES = (".py", ".cpp", ".h")
_ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def code_version() -> str:
    """Return the SHA-256 over the names and contents of all source files, as when first asked."""
    return hash_of_code()


def code_has_changed() -> bool:
    """Tell whether other code lies there now than when `code_version` was asked first."""
    return hash_of_code() != code_version()


def hash_of_code() -> str:
    """Return the SHA-256 over the names and contents of all source files, as they lie now."""
    digest = hashlib.sha256()
    for folder in source_folders():
        for path in source_files(folder):
            digest.update(path.relative_to(folder.parent).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def source_folders() -> list[Path]:
    """Return where the packages lie; what is shipped to a cluster lies in two places."""
    specs = [importlib.util.find_spec(package) for package in _PACKAGES]
    return [Path(spec.origin).resolve().parent for spec in specs if spec and spec.origin]


def source_files(folder: Path) -> list[Path]:
    """Return all source files below a folder, sorted: Python's, and those of the kernels."""
    return sorted(path for path in folder.rglob("*.*") if path.suffix in _SOURCE_SUFFIXES)


def release() -> str:
    """Return the version and the beginning of the code's hash, for people."""
    return f"{package_version()}+{code_version()[:12]}"


def code_of(version: str) -> str:
    """Return the beginning of the code's hash out of what `release` returned; "" without."""
    return version.partition("+")[2]


def package_version() -> str:
    """Return the version alone; it reads no source file."""
    return version("ddpmctl")


@functools.cache
def git_commit() -> str | None:
    """Return the commit of the checkout that the code is in, or None outside of one."""
    if not (_ROOT / ".git").exists():
        return None
    done = subprocess.run(
        ["git", "-C", str(_ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None
