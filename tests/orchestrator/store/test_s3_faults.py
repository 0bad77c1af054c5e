"""The setting that cures a store's answer is named, with its value where that is known."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from orchestrator.store.s3_faults import S3Fault


def fault(code: str, status: int, operation: str = "PutObject", **headers: str) -> S3Fault:
    """What botocore raises for an answer."""
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": metadata}
    return S3Fault.of(ClientError(answer, operation))


@pytest.mark.parametrize(
    ("answer", "endpoint", "told"),
    [
        (
            fault("PermanentRedirect", 301, **{"x-amz-bucket-region": "eu-west-1"}),
            "https://s3.amazonaws.com",
            "AWS_REGION=eu-west-1",
        ),
        (fault("AuthorizationHeaderMalformed", 400), "https://x", "AWS_REGION"),
        (fault("NotImplemented", 501), "http://x", "AWS_REQUEST_CHECKSUM_CALCULATION"),
        (fault("MissingContentLength", 411), "http://x", "AWS_REQUEST_CHECKSUM_CALCULATION"),
        (fault("XAmzContentSHA256Mismatch", 400), "http://x", "AWS_REQUEST_CHECKSUM_CALCULATION"),
        (fault("NoSuchBucket", 404), "http://x", "make the bucket 'bucket'"),
        (fault("NoSuchBucket", 404), "http://x/bucket/", "leave /bucket out of it"),
        (fault("NoSuchBucket", 404), "https://bucket.s3.amazonaws.com", "leave bucket. out of it"),
        (fault("SignatureDoesNotMatch", 403), "http://x", "AWS_SECRET_ACCESS_KEY"),
        (fault("ExpiredToken", 400), "http://x", "renew the login"),
        (fault("RequestTimeTooSkewed", 403), "http://x", "clock"),
        (fault("404", 404, "ListObjectsV2"), "http://x:5000", "AWS_ENDPOINT_URL_S3"),
        (fault("InternalError", 500, "GetObject"), "http://x", "look at the store's log"),
    ],
)
def test_the_cure_names_the_setting(
    answer: S3Fault, endpoint: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads that the store does not know this operation looks in the wrong place."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    assert told in answer.cure("bucket", endpoint)
