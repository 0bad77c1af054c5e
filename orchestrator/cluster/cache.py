"""This user's cache on this machine: data sets, checkpoints, and word of what is compiled."""

from pathlib import Path

from orchestrator.cluster.private_files import user_folder


def cache_folder(name: str) -> Path:
    """Return a folder of the cache; nobody else can enter it, so what lies there is ours.

    Args:
        name: Of the folder, which the caller makes if it is absent.

    Raises:
        LocalFolderError: The cache cannot be made, or is somebody else's.
    """
    return user_folder("ddpmctl-cache") / name
