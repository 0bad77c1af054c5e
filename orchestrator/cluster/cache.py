"""This user's cache on this machine: data sets, checkpoints, and word of what is compiled."""

import os
import tempfile
from pathlib import Path

from orchestrator.cluster.private_files import make_private_folder


def cache_folder(name: str) -> Path:
    """Return a folder of the cache; nobody else can enter it, so what lies there is ours.

    Args:
        name: Of the folder, which the caller makes if it is absent.

    Raises:
        LocalFolderError: The cache cannot be made, or is somebody else's.
    """
    root = Path(tempfile.gettempdir()) / f"ddpmctl-cache-{os.getuid()}"
    make_private_folder(root)
    return root / name
