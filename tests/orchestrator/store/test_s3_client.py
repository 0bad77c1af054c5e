"""One client for all: what configures it, and what does not."""

from pathlib import Path

import pytest

from orchestrator.errors import BadInputError
from orchestrator.store.s3_client import Patience, s3_client


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of profiles that the environment names."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return file


def test_the_region_of_a_profile_counts(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was overruled by a default of ours, so that every request was redirected."""
    profiles.write_text("[profile work]\nregion = eu-west-1\nendpoint_url = http://127.0.0.1:9\n")
    assert s3_client(Patience()).meta.region_name == "us-east-1"
    monkeypatch.setenv("AWS_PROFILE", "work")
    client = s3_client(Patience())
    assert (client.meta.region_name, client.meta.endpoint_url) == (
        "eu-west-1",
        "http://127.0.0.1:9",
    )
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    assert s3_client(Patience()).meta.region_name == "ap-south-1"


def test_the_same_settings_are_the_same_client(
    profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client costs a tenth of a second, and its connections are worth keeping."""
    assert s3_client(Patience()) is s3_client(Patience())
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    assert s3_client(Patience()) is not s3_client(Patience(tries=1))


def test_a_broken_file_of_profiles_is_named(profiles: Path) -> None:
    """The user's other tools may never have read it."""
    profiles.write_text("no section\n")
    with pytest.raises(BadInputError, match="AWS_CONFIG_FILE"):
        s3_client(Patience())
