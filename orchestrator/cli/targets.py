"""Paths that a verb writes to, looked at before it reads anything."""

import os
from pathlib import Path

import click


class TargetPath(click.ParamType[Path]):
    """A file or a folder that is to be written; what can't be is refused before any work.

    Args:
        is_folder: Whether a folder is written, where that is so whatever is asked for; None where
            the verb itself decides, and checks.
    """

    name = "path"

    def __init__(self, is_folder: bool | None = False) -> None:
        self._is_folder = is_folder

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        """Return the path. Raises: BadParameter."""
        path = Path(str(value))
        try:
            why = _obstacle(path, self._is_folder)
        except OSError as error:  # such as a name that is too long
            why = str(error.strerror)
        if why:
            self.fail(f"cannot write {path}: {why}", param, ctx)
        return path


def _obstacle(path: Path, is_folder: bool | None) -> str:
    """Say why a path can't be written; "" if it can. Raises: OSError."""
    if path.is_dir():
        if is_folder is False:
            return "it is a folder; name a file in it"
        return _refusal(path)
    if is_folder and os.path.lexists(path):
        return "it is a file, and a folder is written"
    if path.exists() and not os.access(path, os.W_OK):
        return "you may not write it"
    there = Path(os.path.abspath(path)).parent  # noqa: PTH100 - a link stays one, `..` does not
    while not os.path.lexists(there):
        there = there.parent
    return _refusal(there) if there.is_dir() else f"{there} is no folder"


def _refusal(folder: Path) -> str:
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"you may not write in {folder}"
