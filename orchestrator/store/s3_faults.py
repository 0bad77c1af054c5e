"""What to do about an answer of an S3 server: the setting that cures it, by name."""

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from orchestrator.store.s3_client import endpoint_setting

# Nobody is known by them; by a status alone where a HEAD was refused, whose answer has no body.
_UNKNOWN_CREDENTIALS = frozenset({"401", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch"})
REFUSED = _UNKNOWN_CREDENTIALS | {"AccessDenied"}
# Good once, and again when whoever issues them has been asked: a role's, a login's, a file's.
_EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
)
_OTHER_REGION = frozenset(
    {
        "301",
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
    }
)
_WRITES = frozenset({"PutObject", "UploadPart"})
_NO_TRAILERS = frozenset({"400", "411", "501", "NotImplemented", "MissingContentLength"})
_CREDENTIALS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and their rights"
_TRAILERS = "if it takes no checksum trailers: set AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
_CURES = {
    **dict.fromkeys(
        _EXPIRED, "the credentials have run out: renew the login, or the file that they come from"
    ),
    "RequestTimeTooSkewed": "set this machine's clock by NTP",
    "InvalidBucketName": "name another bucket in DDPMCTL_STORE",
}


@dataclass(frozen=True)
class S3Fault:
    """An answer that is an error.

    Attributes:
        code: The server's own word for it.
        status: The HTTP status.
        operation: What was asked.
        region: Where the server says that the bucket is.
        is_repeated: Whether it was asked more than once: what the first time did is unknown.
    """

    code: str
    status: str
    operation: str
    region: str | None
    is_repeated: bool = False

    @classmethod
    def of(cls, error: Any) -> "S3Fault":
        """Read it from a botocore ClientError."""
        answer = error.response
        metadata = answer.get("ResponseMetadata", {})
        headers = metadata.get("HTTPHeaders", {})
        details = answer.get("Error", {})
        return cls(
            str(details.get("Code", "")),
            str(metadata.get("HTTPStatusCode", "")),
            str(getattr(error, "operation_name", "")),
            headers.get("x-amz-bucket-region") or details.get("Region"),
            bool(metadata.get("RetryAttempts")),
        )

    def has(self, kinds: frozenset[str]) -> bool:
        """Whether its code or status is one of these."""
        return bool({self.code, self.status} & kinds)

    @property
    def is_bare_refusal(self) -> bool:
        """Whether it is refused by a status alone, as a HEAD is: Amazon answers 400 for a token."""
        return self.code == self.status and self.status in ("400", "401", "403")

    def may_pass(self, *, has_served: bool) -> bool:
        """Whether other credentials will do, which are on their way.

        Args:
            has_served: Whether the store took these before: a key that is replaced there first.
        """
        return self.code in _EXPIRED or (has_served and self.code in _UNKNOWN_CREDENTIALS)

    def cure(self, bucket: str, endpoint: str) -> str:
        """Return what to do about it, naming the setting."""
        if self.code in _CURES:
            return _CURES[self.code]
        if self.has(_OTHER_REGION):
            there = f"={self.region}" if self.region else " to the bucket's region"
            return f"set AWS_REGION{there}"
        if inside := bucket_inside(bucket, endpoint):
            return inside
        if self.code == "NoSuchBucket":
            return f"make the bucket {bucket!r}, or name another in DDPMCTL_STORE"
        if self.has(REFUSED):
            return _CREDENTIALS
        if self.operation in _WRITES and self.has(_NO_TRAILERS):
            return _TRAILERS
        if self.status in ("404", "405"):
            return (
                f"{endpoint_setting(os.environ)}={endpoint} may name something that is no S3 server"
            )
        return "look at the store's log, or run `ddpmctl up` where the store is the embedded one"


def bucket_inside(bucket: str, endpoint: str) -> str | None:
    """Return what to do where an endpoint holds the bucket already, or None."""
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        return None
    setting = endpoint_setting(os.environ)
    if parts.path.strip("/").split("/")[-1] == bucket:
        return f"the bucket stands in {setting}, too: leave /{bucket} out of it"
    if (parts.hostname or "").startswith(f"{bucket}."):
        return f"the bucket stands in {setting}, too: leave {bucket}. out of it"
    return None
