"""`doctor` finds the embedded stack in good health, and sees what ails it."""

import pytest

from orchestrator.client.doctor.run import diagnose
from orchestrator.stack.embedded import StackInfo
from orchestrator.store.s3_store import open_store


def test_embedded_stack_is_in_good_health(stack_info: StackInfo) -> None:
    """The stack that we ship must keep every promise that we ask of others."""
    findings = diagnose()
    assert [finding for finding in findings if not finding.ok] == []
    assert {finding.part for finding in findings} == {"store", "ray", "mlflow"}
    store = open_store(stack_info.environment["DDPMCTL_STORE"])
    assert list(store.list_objects("doctor/")) == []


def test_wrong_credentials_are_seen_by_each_part(
    stack_info: StackInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part names its own variable, so that the reader knows where to look."""
    for name in ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.setenv(name, "guess")
    findings = diagnose()
    assert [(one.part, one.ok) for one in findings] == [
        ("store", False),
        ("ray", False),
        ("mlflow", False),
    ]
    remedies = " ".join(finding.remedy for finding in findings)
    for name in ("AWS_ACCESS_KEY_ID", "RAY_AUTH_TOKEN_PATH", "MLFLOW_TRACKING_TOKEN"):
        assert name in remedies
