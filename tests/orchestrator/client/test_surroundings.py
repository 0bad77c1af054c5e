"""What surrounds a command counts only where it is said to, and what does not count is named."""

import os
from pathlib import Path

import pytest

from orchestrator.client.surroundings import stack_folder, surroundings, use_stack
from orchestrator.errors import BadInputError
from orchestrator.stack.embedded import StackInfo


@pytest.fixture
def info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StackInfo:
    """A stack, and an environment of which the test's end leaves nothing."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "MLFLOW_", "_MLFLOW_", "RAY_", "DDPMCTL_")):
            monkeypatch.delenv(name)
    environment = {"AWS_ACCESS_KEY_ID": "own", "RAY_ADDRESS": "http://127.0.0.1:1"}
    for name in environment:
        monkeypatch.setenv(name, "theirs")
    return StackInfo(tmp_path, environment, "", "", tmp_path, "")


def test_a_stack_of_our_own_takes_only_what_it_sets(
    info: StackInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one variable left over, requests went to Amazon."""
    theirs = (
        "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_REGION",
        "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "RAY_AUTH_TOKEN", "RAY_NAMESPACE",
        "MLFLOW_TRACKING_USERNAME", "MLFLOW_REGISTRY_URI", "_MLFLOW_X",
    )  # fmt: skip
    for name in theirs:
        monkeypatch.setenv(name, "theirs")
    use_stack(info, lambda line: None)
    assert not [name for name in theirs if name in os.environ]
    assert {name: os.environ[name] for name in info.environment} == info.environment


def test_what_is_ignored_is_said_once(info: StackInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody believes that it counts; but nobody reads a line that comes each time."""
    said: list[str] = []
    for _ in range(2):
        monkeypatch.setenv("RAY_ADDRESS", "http://theirs")
        monkeypatch.setenv("AWS_PROFILE", "work")
        monkeypatch.setenv("AWS_REGION", "eu-west-1")  # many have that, and it points nowhere
        use_stack(info, said.append)
    assert len(said) == 1
    assert said[0].startswith("AWS_ACCESS_KEY_ID, AWS_PROFILE, RAY_ADDRESS are ignored")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://theirs")
    use_stack(info, said.append)
    assert said[1].startswith("MLFLOW_TRACKING_URI is ignored")


def test_a_folder_above_that_is_closed_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner has no stack for us in it."""
    monkeypatch.delenv("DDPMCTL_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    exists = Path.exists

    def closed(path: Path) -> bool:
        if path.parent.parent == tmp_path.parent:
            raise PermissionError(13, "Permission denied")
        return exists(path)

    monkeypatch.setattr(Path, "exists", closed)
    assert stack_folder() == tmp_path / ".ddpmctl"


def test_a_home_of_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a mistake in one variable, which is named."""
    monkeypatch.setenv("DDPMCTL_HOME", "~nobody-here/x")
    with pytest.raises(BadInputError, match="DDPMCTL_HOME"):
        stack_folder()


def test_what_counts_for_nothing_without_a_store_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint and a tracking address alone do not say where the jobs are."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "RAY_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("DDPMCTL_STORE", raising=False)
    monkeypatch.setenv("DDPMCTL_HOME", str(tmp_path))
    with pytest.raises(BadInputError, match=r"run `ddpmctl up`$"):
        surroundings(print)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(BadInputError, match=r"up` \(AWS_ENDPOINT_URL counts only beside DDPMCTL"):
        surroundings(print)
    monkeypatch.setenv("AWS_PROFILE", "mine")
    with pytest.raises(BadInputError, match=r"\(AWS_ENDPOINT_URL, AWS_PROFILE count only beside"):
        surroundings(print)
