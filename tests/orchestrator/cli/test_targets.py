"""What a verb is to write is looked at before it reads anything."""

from pathlib import Path

import click
import pytest

from orchestrator.cli.targets import TargetPath


def test_a_path_that_can_be_written_is_taken(tmp_path: Path) -> None:
    """Also one whose folders are not there yet, or that stands already."""
    old = tmp_path / "old.png"
    old.write_bytes(b"")
    for path in (tmp_path / "a.png", tmp_path / "b" / "c" / "d.png", old):
        assert TargetPath().convert(str(path), None, None) == path
    assert TargetPath(is_folder=True).convert(str(tmp_path), None, None) == tmp_path


@pytest.mark.parametrize(
    ("path", "is_folder", "told"),
    [
        ("", False, "name a file in it"),
        (".", False, "name a file in it"),
        ("file/x.png", False, "file is no folder"),
        ("file/deep/x.png", None, "file is no folder"),
        ("file", True, "it is a file"),
        ("n" * 300, False, "too long"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused_in_one_line(
    path: str, is_folder: bool | None, told: str, tmp_path: Path
) -> None:
    """A set of hours was read and proven before its place turned out to be none."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(click.BadParameter, match=told):
        TargetPath(is_folder).convert(f"{tmp_path}/{path}", None, None)
