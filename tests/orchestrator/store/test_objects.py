"""What a store answers, in our words."""

import io
import threading
from pathlib import Path

import botocore.session
import pytest
from botocore.config import Config
from botocore.response import StreamingBody
from botocore.stub import Stubber

from orchestrator.errors import CredentialsExpiredError, ObjectNotFoundError, StoreRefusedError
from orchestrator.store.outages import Backoff, outlast_outage
from orchestrator.store.s3_store import S3Store


def stubbed(*, code: str = "", served: bool = False) -> tuple[object, Stubber]:
    """Return a client that fails once with a code, or that answers an empty listing.

    Args:
        code: With what it fails; "" if it does not.
        served: Whether it answers once before.
    """
    client = botocore.session.get_session().create_client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(retries={"total_max_attempts": 1}),
    )
    stub = Stubber(client)
    if served:
        stub.add_response("list_objects_v2", {"KeyCount": 0})
    if code:
        stub.add_client_error("list_objects_v2", service_error_code=code, http_status_code=400)
    elif not served:
        stub.add_response("list_objects_v2", {"KeyCount": 0})
    stub.activate()
    return client, stub


@pytest.mark.parametrize("code", ["ExpiredToken", "ExpiredTokenException", "RequestExpired"])
def test_expired_credentials_are_waited_for_and_looked_for_anew(code: str) -> None:
    """A token that ran out for three minutes ended a long job as BAD_INPUT, never tried again."""
    old, _ = stubbed(code=code)
    new, answered = stubbed()
    store = S3Store(old, "b", "", renewed=lambda: new)  # type: ignore[arg-type,return-value]
    listed = outlast_outage(
        lambda: list(store.list_objects("x")), Backoff(first_s=0.0), threading.Event()
    )
    assert listed == []
    answered.assert_no_pending_responses()


def test_expired_credentials_are_told_as_such() -> None:
    """A store that "does not answer" would send a reader to the wrong machine."""
    old, _ = stubbed(code="ExpiredToken")
    with pytest.raises(CredentialsExpiredError, match=r"have expired .* \(ExpiredToken\)"):
        list(S3Store(old, "b", "").list_objects("x"))  # type: ignore[arg-type]


def test_a_key_that_was_never_good_is_refused_at_once() -> None:
    """Waiting does not make it good."""
    old, _ = stubbed(code="InvalidAccessKeyId")
    with pytest.raises(StoreRefusedError):
        list(S3Store(old, "b", "").list_objects("x"))  # type: ignore[arg-type]


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "403"])
def test_a_key_that_was_good_is_waited_for(code: str) -> None:
    """A key that is replaced in the store first and on the nodes later ends no job."""
    old, _ = stubbed(code=code, served=True)
    new, answered = stubbed()
    store = S3Store(old, "b", "", renewed=lambda: new)  # type: ignore[arg-type,return-value]
    assert list(store.list_objects("x")) == []
    listed = outlast_outage(
        lambda: list(store.list_objects("x")), Backoff(first_s=0.0), threading.Event()
    )
    assert listed == []
    answered.assert_no_pending_responses()


def test_a_right_that_is_missing_is_no_matter_of_time() -> None:
    """The key is known and may do other things: waiting would hide what is wrong."""
    old, _ = stubbed(code="AccessDenied", served=True)
    store = S3Store(old, "b", "")  # type: ignore[arg-type]
    list(store.list_objects("x"))
    with pytest.raises(StoreRefusedError):
        list(store.list_objects("x"))


def head_refused(status: int, word: str) -> S3Store:
    """A store that has served, whose next HEAD is refused by a status, and GET with a word.

    Args:
        status: Of both answers.
        word: What the answer to the GET says; "" if it is the object's first byte.
    """
    client, stub = stubbed(served=True)
    store = S3Store(client, "b", "p")  # type: ignore[arg-type]
    stub.add_client_error("head_object", str(status), http_status_code=status)
    if word:
        where = {"Bucket": "b", "Key": "p/k", "Range": "bytes=0-0"}
        stub.add_client_error("get_object", word, http_status_code=status, expected_params=where)
    else:
        body = StreamingBody(io.BytesIO(b"x"), 1)
        stub.add_response("get_object", {"Body": body, "ContentLength": 1})
    list(store.list_objects("x"))
    return store


@pytest.mark.parametrize(
    ("status", "word", "error"),
    [
        (403, "AccessDenied", StoreRefusedError),
        (403, "InvalidAccessKeyId", CredentialsExpiredError),
        (403, "SignatureDoesNotMatch", CredentialsExpiredError),
        (400, "ExpiredToken", CredentialsExpiredError),
        (403, "", CredentialsExpiredError),  # by another gateway, or a moment ago
        (404, "", ObjectNotFoundError),
    ],
)
def test_a_head_that_is_refused_is_told_by_the_word_of_a_get(
    status: int, word: str, error: type[Exception], tmp_path: Path
) -> None:
    """A right that is missing was waited for, and a token that ran out was not renewed."""
    with pytest.raises(error, match=word or None) as caught:
        head_refused(status, word).get_file("k", tmp_path / "k")
    assert type(caught.value) is error
    if error is not ObjectNotFoundError:
        with pytest.raises(error):
            head_refused(status, word).exists("k")


def test_a_get_that_finds_nothing_answers_for_the_head() -> None:
    """Some servers refuse to say of an object that there is none, by one of the two."""
    client, stub = stubbed(served=True)
    store = S3Store(client, "b", "p")  # type: ignore[arg-type]
    stub.add_client_error("head_object", "403", http_status_code=403)
    stub.add_client_error("get_object", "NoSuchKey", http_status_code=404)
    list(store.list_objects("x"))
    assert not store.exists("k")
