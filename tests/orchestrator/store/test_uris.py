"""Addresses in a store come back character by character, or are refused in one line."""

import pytest

from orchestrator.errors import BadInputError
from orchestrator.store.s3_store import open_store
from orchestrator.store.uris import parse_store_uri
from tests.support.odd_texts import ODD_TEXTS


@pytest.mark.parametrize("text", [text for text in ODD_TEXTS if "\t" not in text])
def test_a_prefix_stays_as_it_is_typed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as a URL, what stands behind # and ? would be another store, or none."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    assert parse_store_uri(f"s3://bucket/a/{text}") == ("bucket", f"a/{text}")
    assert open_store(f"s3://bucket/{text}/").uri == f"s3://bucket/{text}"


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("", "must look like s3://bucket/prefix"),
        ("bucket/prefix", "must look like s3://bucket/prefix"),
        ("s3://", "must look like s3://bucket/prefix"),
        ("s3:///prefix", "must look like s3://bucket/prefix"),
        ("http://[::1", "must look like s3://bucket/prefix"),
        ("s3://[::1/x", "no name of a bucket"),
        ("s3://my bucket/x", "no name of a bucket"),
        ("s3://bücher/x", "no name of a bucket"),
        ("s3://user:secret@bucket/x", "no name of a bucket"),
        ("s3://bucket?x", "no name of a bucket"),
        ("s3://bucket/a\nb", "no character of a name"),
        ("s3://bucket/a\tb", "no character of a name"),
        ("s3://bucket/a\x00b", "no character of a name"),
        ("s3://bucket/a\udce4b", "no character of a name"),
        ("s3://bucket//a", "empty"),
        ("s3://bucket/a//b", "empty"),
        ("s3://bucket/a/../b", "empty, '.' or '..'"),
        ("s3://bucket/" + "x" * 256, "more than 255 bytes"),
        ("s3://bucket/" + "/".join(["x" * 200] * 4), "more than 600 bytes"),
    ],
)
def test_an_address_that_no_store_keeps_is_one_line(uri: str, told: str) -> None:
    """It names the setting and what is wrong with it, before anything is written."""
    with pytest.raises(BadInputError, match="DDPMCTL_STORE") as error:
        parse_store_uri(uri, "DDPMCTL_STORE")
    assert told in str(error.value)
    assert "\n" not in str(error.value)
