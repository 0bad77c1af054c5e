"""The object store on an S3-compatible server."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from orchestrator.errors import ConditionFailedError, ObjectNotFoundError
from orchestrator.store.objects import ObjectInfo, OpenUpload, StoredObject
from orchestrator.store.s3_client import Patience, fresh_client, s3_client
from orchestrator.store.s3_connection import S3Connection
from orchestrator.store.s3_faults import S3Fault
from orchestrator.store.uris import parse_store_uri

if TYPE_CHECKING:
    from boto3.s3.transfer import S3Transfer
    from mypy_boto3_s3 import S3Client


class S3Store:
    """An `ObjectStore` on an S3-compatible server; keys are below a prefix of one bucket."""

    def __init__(
        self,
        client: "S3Client",
        bucket: str,
        prefix: str,
        renewed: Callable[[], "S3Client"] | None = None,
    ) -> None:
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self.address = f"{client.meta.endpoint_url} {self.uri}"
        self._connection = S3Connection(client, bucket, self.uri, renewed)
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._clock_offset = timedelta(0)
        self._clock_read_at = float("-inf")

    @property
    def _client(self) -> "S3Client":
        return self._connection.client

    def _translated(
        self, key: str, conditional: bool = False, *, looked_at: str = ""
    ) -> AbstractContextManager[None]:
        return self._connection.translated(key, conditional=conditional, looked_at=looked_at)

    def get(self, key: str) -> StoredObject:
        """Return an object. Raises: ObjectNotFoundError."""
        with self._translated(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            body = answer["Body"].read()
        read_at = self._note_clock(answer)
        return StoredObject(key, body, answer["ETag"], answer["LastModified"], read_at)

    def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write an object and return its ETag. Raises: ConditionFailedError."""
        condition: dict[str, Any] = {}
        if if_absent:
            condition["IfNoneMatch"] = "*"
        if if_match is not None:
            condition["IfMatch"] = if_match
        try:
            with self._translated(key, conditional=bool(condition)):
                answer = self._client.put_object(
                    Bucket=self._bucket, Key=self._prefix + key, Body=body, **condition
                )
        except ConditionFailedError as error:
            # An answer that is lost has the client send a put again, which then meets itself.
            if S3Fault.of(error.__cause__).is_repeated and (standing := self.get(key)).body == body:
                return standing.etag
            raise
        self._note_clock(answer)
        return answer["ETag"]

    def get_range(self, key: str, first_byte: int, size_bytes: int, *, etag: str = "") -> bytes:
        """Return a part, of one version. Raises: ObjectNotFoundError, ConditionFailedError."""
        which: dict[str, Any] = {"IfMatch": etag} if etag else {}
        which["Range"] = f"bytes={first_byte}-{first_byte + size_bytes - 1}"
        with self._translated(key, conditional=bool(etag)):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, **which)
            return answer["Body"].read()

    def get_file(self, key: str, path: Path) -> None:
        """Copy an object to a local file. Raises: ObjectNotFoundError."""
        with self._transfer(key) as transfer:
            transfer.download_file(self._bucket, self._prefix + key, str(path))

    def put_file(self, key: str, path: Path) -> None:
        """Copy a local file to an object, in parts where it is large."""
        with self._transfer(key) as transfer:
            transfer.upload_file(str(path), self._bucket, self._prefix + key)

    def delete(self, key: str) -> None:
        """Remove an object; removing an absent one is no error."""
        with self._translated(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    def list_objects(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix` and lies above `after`, by key."""
        listed: list[ObjectInfo] = []
        begin: dict[str, Any] = {"StartAfter": self._prefix + after} if after else {}
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix, **begin
            )
            for page in pages:
                listed += [
                    ObjectInfo(
                        item["Key"][len(self._prefix) :],
                        item["Size"],
                        item["ETag"],
                        item["LastModified"],
                    )
                    for item in page.get("Contents", [])
                ]
        # Some stores do not list in byte order, and some know no beginning.
        yield from sorted((i for i in listed if i.key > after), key=lambda info: info.key)

    def list_folders(self, prefix: str) -> list[str]:
        """Return the sorted names of the folders directly below `prefix` (which ends in /)."""
        start = len(self._prefix) + prefix.rfind("/") + 1
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix, Delimiter="/"
            )
            return sorted(
                item["Prefix"][start:].rstrip("/")
                for page in pages
                for item in page.get("CommonPrefixes", [])
            )

    def exists(self, key: str) -> bool:
        """Tell whether there is an object."""
        try:
            with self._translated(key, looked_at=self._prefix + key):
                self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        except ObjectNotFoundError:
            return False
        return True

    def open_uploads(self, older_than: timedelta) -> list[OpenUpload]:
        """Return the multipart uploads that were begun so long ago and never ended."""
        begun_before = self.now() - older_than
        with self._translated(self._prefix):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            uploads = [
                (upload["Key"], upload["UploadId"])
                for page in pages
                for upload in page.get("Uploads", [])
                if upload["Initiated"] < begun_before
            ]
        return [
            OpenUpload(key[len(self._prefix) :], upload_id, self._uploaded_bytes(key, upload_id))
            for key, upload_id in uploads
        ]

    def _uploaded_bytes(self, key: str, upload_id: str) -> int:
        with self._translated(key):
            pages = self._client.get_paginator("list_parts").paginate(
                Bucket=self._bucket, Key=key, UploadId=upload_id
            )
            return sum(part["Size"] for page in pages for part in page.get("Parts", []))

    def abort_upload(self, upload: OpenUpload) -> None:
        """Remove the parts of an upload; one that is gone is no error."""
        key = self._prefix + upload.key
        with suppress(ObjectNotFoundError), self._translated(upload.key):
            self._client.abort_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload.upload_id
            )

    def now(self) -> datetime:
        """Return the time by the store's clock, from the newest answer within the last minute."""
        if monotonic() - self._clock_read_at > 60:
            with self._translated(""):
                self._note_clock(
                    self._client.list_objects_v2(
                        Bucket=self._bucket, Prefix=self._prefix + "queue/", MaxKeys=1
                    )
                )
        return datetime.now(UTC) + self._clock_offset

    def _note_clock(self, answer: Any) -> datetime:
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        local = datetime.now(UTC)
        remote = parsedate_to_datetime(date) if date else local
        # The header has whole seconds: within one, the local clock is the better one.
        offset = remote - local
        self._clock_offset = offset if abs(offset) > timedelta(seconds=1.5) else timedelta(0)
        self._clock_read_at = monotonic()
        return local + self._clock_offset

    @contextmanager
    def _transfer(self, key: str) -> Iterator["S3Transfer"]:
        """Yield what carries files; only here is boto3 itself needed, which loads slowly."""
        from boto3.exceptions import Boto3Error
        from boto3.s3.transfer import S3Transfer

        with self._translated(key, looked_at=self._prefix + key):
            try:
                with S3Transfer(self._client) as transfer:
                    yield transfer
            except Boto3Error as error:
                raise error.__context__ or error from error


def open_store(uri: str, answer_within_s: float = 60.0) -> S3Store:
    """Return the store at s3://bucket/prefix; credentials and endpoint come from AWS_*.

    Args:
        uri: Its address.
        answer_within_s: Seconds of silence after which a request is sent again, or has failed.

    Raises:
        BadInputError: The URI is malformed, or a setting cannot be used.
    """
    return _store_at(*parse_store_uri(uri), Patience(answer_within_s))


def open_bucket(uri: str) -> S3Store:
    """Return the store below any key of a bucket, whatever characters that has."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return _store_at(bucket, prefix.strip("/"), Patience())


def _store_at(bucket: str, prefix: str, patience: Patience) -> S3Store:
    return S3Store(s3_client(patience), bucket, prefix, partial(fresh_client, patience))
