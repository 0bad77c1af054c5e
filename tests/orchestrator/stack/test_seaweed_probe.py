"""The look at the embedded store depends on nothing but the store."""

from pathlib import Path

import pytest

from orchestrator.stack.files import StackFolder, load_secrets
from orchestrator.stack.ports import choose_ports
from orchestrator.stack.seaweed_probe import SeaweedProbe


def test_the_user_s_own_settings_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile that is nowhere was a traceback while the store was being started."""
    monkeypatch.setenv("AWS_PROFILE", "no such profile")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "broken"))
    (tmp_path / "broken").write_text("[")
    (tmp_path / "secrets").mkdir()
    port = choose_ports(["store"], {})["store"]
    probe = SeaweedProbe(port, load_secrets(StackFolder(tmp_path)))
    assert not probe.keeps_objects()
