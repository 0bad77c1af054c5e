"""Tars of files in memory."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path


def tar_bytes(members: Mapping[str, bytes]) -> bytes:
    """Return a plain tar of files by name, in their order."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return packed.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write a plain tar of files by name, and return its path."""
    path.write_bytes(tar_bytes(members))
    return path
