"""Files and folders that only their owner can read, written whole or not at all."""

import os
import stat
import tempfile
from pathlib import Path

from orchestrator.errors import LocalFolderError


def make_private_folder(folder: Path) -> None:
    """Make a folder, with those above it, that nobody else can enter.

    Raises:
        LocalFolderError: It cannot be made, or it exists and is not ours.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise LocalFolderError(f"{folder} is not a folder of this user; move it away")
        if stat.S_IMODE(status.st_mode) != 0o700:
            folder.chmod(0o700)
    except OSError as error:
        raise LocalFolderError(f"cannot make the folder {folder}: {error.strerror}") from error


def write_private(path: Path, content: bytes) -> None:
    """Put a file of mode 0600 in place; a reader sees the old content or the new.

    Raises:
        LocalFolderError: It cannot be written.
    """
    try:
        # A new temporary file has mode 0600.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise LocalFolderError(f"cannot write {path}: {error.strerror}") from error


def user_folder(name: str) -> Path:
    """Return this user's folder of a name among the machine's temporary files, made if absent.

    Raises:
        LocalFolderError: It cannot be made, or is somebody else's; the message names TMPDIR.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    except OSError as error:  # none of the usual places can be written
        raise LocalFolderError(f"{error.strerror}: set TMPDIR to a folder that can be") from error
    try:
        make_private_folder(folder)
    except LocalFolderError as error:
        raise LocalFolderError(f"{error}, or set TMPDIR to another place") from error
    return folder
