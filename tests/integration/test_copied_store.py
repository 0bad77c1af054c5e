"""A copy on the real store: proven, and its cancelled training goes on to the end."""

import secrets
from pathlib import Path

import pytest

from orchestrator.stack.embedded import StackInfo
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from orchestrator.store.s3_store import open_store
from tests.integration.commands import ddpmctl, submit, train_text, wait_until


@pytest.mark.timeout(600)
def test_a_copied_store_goes_on(
    stack_info: StackInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the whole way nothing is a stand-in: S3, the second orchestrator, the checkpoint."""
    bucket = stack_info.environment["DDPMCTL_STORE"].split("/")[2]
    first, second = (f"s3://{bucket}/{name}-{secrets.token_hex(3)}" for name in ("own", "copy"))
    monkeypatch.setenv("DDPMCTL_STORE", first)
    job_id = submit(tmp_path, train_text("cut", steps=4000, every=10))
    assert ddpmctl("store", "copy", second).exit_code == 1  # it lives
    wait_until(lambda: ddpmctl("status", job_id).value["committed"] >= 10)
    assert ddpmctl("cancel", job_id).exit_code == 0
    wait_until(lambda: ddpmctl("store", "copy", second).exit_code == 0)  # its mark is gone by then
    one, other = open_store(first), open_store(second)
    wait_until(lambda: next(one.list_objects(keys.TRACKING), None) is None)  # all is in MLflow
    assert ddpmctl("store", "copy", second).exit_code == 0
    again = ddpmctl("store", "copy", second)
    assert again.value["objects"] > 20
    assert (again.value["copied"], again.value["removed"]) == (0, 0), again
    written = [info.key for info in one.list_objects(JobPaths(job_id).folder)]
    assert all(one.get(key).body == other.get(key).body for key in written)
    monkeypatch.setenv("DDPMCTL_STORE", second)
    saved = ddpmctl("status", job_id).value["committed"]
    assert saved >= 10
    assert ddpmctl("retry", job_id).exit_code == 0
    wait_until(lambda: ddpmctl("status", job_id).value["committed"] > saved)
    assert ddpmctl("status", job_id).value["attempt"] == 2
    assert ddpmctl("cancel", job_id).exit_code == 0
    assert ddpmctl("store", "copy", first).exit_code == 1  # this one is a store of its own
