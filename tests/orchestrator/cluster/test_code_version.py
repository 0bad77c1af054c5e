"""Which code runs, and whether another lies there by now."""

from pathlib import Path

import pytest

from orchestrator.cluster import code_version as module
from orchestrator.cluster.code_version import code_has_changed, code_version, source_files


def test_code_that_was_written_over_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs stays what it was; what a restart would run is another thing."""
    file = tmp_path / "ddpm" / "a.py"
    file.parent.mkdir()
    file.write_text("a = 1")
    monkeypatch.setattr(module, "source_folders", lambda: [file.parent])
    before, fresh = code_version(), module.hash_of_code()
    monkeypatch.setattr(module, "code_version", lambda: fresh)
    assert not code_has_changed()
    file.write_text("a = 2")
    assert code_has_changed()
    assert code_version() == before


def test_both_packages_count_wherever_they_lie() -> None:
    """Code that is shipped to a cluster lies in a folder of its own for each package."""
    folders = module.source_folders()
    assert [folder.name for folder in folders] == ["ddpm", "orchestrator"]
    assert all(source_files(folder) for folder in folders)
