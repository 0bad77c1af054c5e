"""A client of an S3 server whose credentials may be renewed, and its refusals in our words."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orchestrator.errors import (
    BadInputError,
    ConditionFailedError,
    CredentialsExpiredError,
    ObjectNotFoundError,
    StoreRefusedError,
    StoreUnavailableError,
)
from orchestrator.store.s3_faults import REFUSED, S3Fault, bucket_inside

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_UNREACHED = "check AWS_ENDPOINT_URL_S3, or run `ddpmctl up`"
_NOT_FOUND = frozenset({"404", "NoSuchKey", "NoSuchUpload", "NotFound"})
_CONDITION_FAILED = frozenset({"412", "409", "PreconditionFailed", "ConditionalRequestConflict"})
_FIRST_BYTE = "bytes=0-0"
_IS_EMPTY = "416"


class S3Connection:
    """A client of one bucket, whose errors become ours.

    Args:
        client: What asks.
        bucket: The bucket.
        uri: How users name the store.
        renewed: Gives a client that looks for credentials anew; None where there are no others.

    Attributes:
        client: What asks now.
    """

    def __init__(
        self,
        client: "S3Client",
        bucket: str,
        uri: str,
        renewed: "Callable[[], S3Client] | None" = None,
    ) -> None:
        self.client = client
        self._bucket = bucket
        self._uri = uri
        self._renewed = renewed
        self._has_served = False

    @contextmanager
    def translated(
        self, key: str, *, conditional: bool = False, looked_at: str = ""
    ) -> Iterator[None]:
        """Turn what goes wrong inside into an error of ours.

        Args:
            key: What the error names.
            conditional: Whether a failed condition is meant, where an object is not there.
            looked_at: The object's key in its bucket, where the request may have been a HEAD.

        Raises:
            StoreUnavailableError: The store does not answer, or not now.
            StoreRefusedError: It does not let us in, or not to this.
            ObjectNotFoundError: There is no such object.
            ConditionFailedError: The condition does not hold.
            BadInputError: There is no such bucket.
        """
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            CredentialRetrievalError,
            NoCredentialsError,
            SSOError,
            TokenRetrievalError,
        )

        try:
            yield
            self._has_served = True
        except ClientError as error:
            fault = self._in_words(S3Fault.of(error), looked_at)
            raise self._translation(error, fault, key, conditional) from error
        except NoCredentialsError as error:
            raise StoreRefusedError(
                f"no credentials for the store {self._uri}: set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ) from error
        except (CredentialRetrievalError, SSOError, TokenRetrievalError) as error:
            raise self._expired(_one_line(error)) from error
        except BotoCoreError as error:
            raise StoreUnavailableError(
                f"the store {self._uri} at {self._endpoint} does not answer ({_one_line(error)}); "
                + (bucket_inside(self._bucket, self._endpoint) or _UNREACHED)
            ) from error

    def _in_words(self, fault: S3Fault, looked_at: str) -> S3Fault:
        """Return what a server says of a HEAD that it refused by a bare status.

        The answer to a HEAD has no body, so a key that is unknown by now, credentials that ran
        out and a right that is missing look the same. A GET of the same object needs the same
        right, and its answer says which of them it is. Where it is answered, the refusal is over,
        or was that of another gateway, and stays one that may pass.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        if not (looked_at and fault.is_bare_refusal):
            return fault
        try:
            answer = self.client.get_object(Bucket=self._bucket, Key=looked_at, Range=_FIRST_BYTE)
            answer["Body"].close()
        except ClientError as error:
            named = S3Fault.of(error)
            return fault if named.status == _IS_EMPTY else named
        except BotoCoreError:
            return fault
        return fault

    @property
    def _endpoint(self) -> str:
        return self.client.meta.endpoint_url

    def _expired(self, why: str) -> CredentialsExpiredError:
        """Return what to raise; the next request looks for credentials anew."""
        if self._renewed is not None:
            self.client = self._renewed()
        return CredentialsExpiredError(
            f"the credentials for the store {self._uri} have expired or were taken back ({why}); "
            "waiting for new ones: renew the login or the file that they come from"
        )

    def _translation(
        self, error: Exception, fault: S3Fault, key: str, conditional: bool
    ) -> Exception:
        cure = fault.cure(self._bucket, self._endpoint)
        if fault.code == "NoSuchBucket":
            return BadInputError(
                f"the store at {self._endpoint} has no bucket {self._bucket!r}; {cure}"
            )
        if conditional and fault.has(_CONDITION_FAILED | _NOT_FOUND):
            return ConditionFailedError(key)
        if fault.has(_NOT_FOUND):
            return ObjectNotFoundError(key)
        if fault.may_pass(has_served=self._has_served):
            return self._expired(fault.code)
        if fault.has(REFUSED):
            message = f"the store {self._uri} refuses {fault.operation} ({fault.code}); {cure}"
            return StoreRefusedError(message)
        return StoreUnavailableError(f"the store {self._uri} failed: {_one_line(error)}; {cure}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
