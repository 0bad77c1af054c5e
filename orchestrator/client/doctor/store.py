"""Probes of an S3-compatible store: whether it keeps the promises that jobs rely on."""

import base64
import hashlib
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.client.doctor.findings import Finding
from orchestrator.errors import BadInputError
from orchestrator.store.s3_client import Patience, s3_client
from orchestrator.store.s3_faults import S3Fault, bucket_inside
from orchestrator.store.uris import parse_store_uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PATIENCE = Patience(answer_within_s=20.0, connect_within_s=5.0, tries=1)
_MAX_SKEW_S = 30.0
_PART_BYTES = 5 * 1024**2  # the smallest that S3 takes for all parts but the last
_HELD = {404, 409, 412}
_REACH_REMEDY = "check AWS_ENDPOINT_URL_S3 and the network, or run `ddpmctl up`"
_CONDITION_REMEDY = (
    "use a store that honours conditional writes (AWS S3, SeaweedFS, R2, Ceph): "
    "without them two writers can overwrite each other, so jobs are not safe on it"
)


def diagnose_store() -> list[Finding]:
    """Probe the store that DDPMCTL_STORE names; what is written for it is removed again."""
    try:
        bucket, prefix = parse_store_uri(os.environ.get("DDPMCTL_STORE", ""), "DDPMCTL_STORE")
    except BadInputError as error:
        remedy = "set DDPMCTL_STORE=s3://bucket/prefix, or run `ddpmctl up`"
        return [Finding("store", "setting", False, str(error), remedy)]
    try:
        client = s3_client(_PATIENCE)
    except BadInputError as error:
        return [Finding("store", "setting", False, str(error), "mend that setting")]
    folder = "/".join(part for part in (prefix, "doctor", secrets.token_hex(8)) if part)
    return StoreProbe(client, bucket, folder).run()


class StoreProbe:
    """Looks at one store through one client.

    Args:
        client: With short time-outs and no retries.
        bucket: Where to look.
        folder: A prefix of keys that nobody else uses.
    """

    def __init__(self, client: "S3Client", bucket: str, folder: str) -> None:
        self._client = client
        self._bucket = bucket
        self._folder = folder
        self._used: set[str] = set()
        self._date: str | None = None  # the store's time, as it said when it was reached
        self._seen_at = datetime.now(UTC)

    def run(self) -> list[Finding]:
        """Return all findings; the first alone, if the store lets nobody in."""
        first = self._guarded("reachable", self._reach)
        if not first.ok:
            return [first]
        checks: dict[str, Callable[[], Finding]] = {
            "write, read and list": self._round_trip,
            "put if absent": self._put_if_absent,
            "put if unchanged": self._put_if_unchanged,
            "put if unchanged, of what is gone": self._put_if_there,
            "checksums": self._checksums,
            "clock": self._clock,
            "upload in parts": self._parts,
        }
        found = [first, *(self._guarded(name, check) for name, check in checks.items())]
        self._clean_up()
        return found

    def _guarded(self, check: str, look: Callable[[], Finding]) -> Finding:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            return look()
        except ClientError as error:
            cure = S3Fault.of(error).cure(self._bucket, self._client.meta.endpoint_url)
            return Finding("store", check, False, _line(error), cure)
        except NoCredentialsError:
            remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            return Finding("store", check, False, "no credentials", remedy)
        except (BotoCoreError, Boto3Error, ValueError) as error:
            inside = bucket_inside(self._bucket, self._client.meta.endpoint_url)
            return Finding("store", check, False, _line(error), inside or _REACH_REMEDY)

    def _reach(self) -> Finding:
        answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._folder, MaxKeys=1)
        self._date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        self._seen_at = datetime.now(UTC)
        url = self._client.meta.endpoint_url
        detail = f"bucket {self._bucket} at {url}, credentials accepted"
        return Finding("store", "reachable", True, detail)

    def _round_trip(self) -> Finding:
        key = self._put("round-trip", b"written")
        body = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        listing = self._client.list_objects_v2(Bucket=self._bucket, Prefix=key)
        is_listed = [item.get("Key") for item in listing.get("Contents", [])] == [key]
        ok = body == b"written" and is_listed
        detail = "an object is read and listed as soon as it is written"
        if not ok:
            detail = f"read back {len(body)} of 7 bytes, listed: {is_listed}"
        remedy = "" if ok else "use a store that shows a write at once"
        return Finding("store", "write, read and list", ok, detail, remedy)

    def _put_if_absent(self) -> Finding:
        self._put("absent", b"first", IfNoneMatch="*")
        status = self._status_of_put("absent", b"second", IfNoneMatch="*")
        return self._condition("put if absent", status, "a second writer")

    def _put_if_unchanged(self) -> Finding:
        key = self._put("unchanged", b"first")
        etag = self._client.head_object(Bucket=self._bucket, Key=key)["ETag"]
        self._put("unchanged", b"second", IfMatch=etag)
        status = self._status_of_put("unchanged", b"third", IfMatch=etag)
        return self._condition("put if unchanged", status, "a writer who saw an older version")

    def _put_if_there(self) -> Finding:
        key = self._put("gone", b"first")
        etag = self._client.head_object(Bucket=self._bucket, Key=key)["ETag"]
        self._client.delete_object(Bucket=self._bucket, Key=key)
        status = self._status_of_put("gone", b"second", IfMatch=etag)
        return self._condition(
            "put if unchanged, of what is gone", status, "a writer whose object was removed"
        )

    def _condition(self, check: str, status: int, who: str) -> Finding:
        ok = status in _HELD
        what = "is turned away" if ok else "overwrote the object"
        remedy = "" if ok else _CONDITION_REMEDY
        return Finding("store", check, ok, f"{who} {what} (status {status})", remedy)

    def _checksums(self) -> Finding:
        wrong = base64.b64encode(hashlib.sha256(b"something else").digest()).decode()
        status = self._status_of_put("checksum", b"damaged", ChecksumSHA256=wrong)
        detail = "a body that does not fit its SHA-256 is refused"
        if status < 400:
            detail = "the store does not compare SHA-256; ddpmctl's own manifests do"
        return Finding("store", "checksums", True, detail)

    def _clock(self) -> Finding:
        if not self._date:
            remedy = "use a store that sends the Date header: leases live by it"
            return Finding("store", "clock", False, "the store does not say its time", remedy)
        skew_s = (parsedate_to_datetime(self._date) - self._seen_at).total_seconds()
        ok = abs(skew_s) <= _MAX_SKEW_S
        detail = f"within {abs(skew_s):.0f} s of this machine's"
        if not ok:
            detail = f"{abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's"
        remedy = "" if ok else "set both clocks by NTP: signatures fail when they differ by 15 min"
        return Finding("store", "clock", ok, detail, remedy)

    def _parts(self) -> Finding:
        place: dict[str, Any] = {"Bucket": self._bucket, "Key": f"{self._folder}/parts"}
        self._used.add(place["Key"])
        upload = self._client.create_multipart_upload(**place)["UploadId"]
        try:
            parts: list[Any] = [
                {
                    "PartNumber": number,
                    "ETag": self._client.upload_part(
                        **place, UploadId=upload, PartNumber=number, Body=body
                    )["ETag"],
                }
                for number, body in ((1, bytes(_PART_BYTES)), (2, b"!"))
            ]
            self._client.complete_multipart_upload(
                **place, UploadId=upload, MultipartUpload={"Parts": parts}
            )
        finally:
            self._forget(lambda: self._client.abort_multipart_upload(**place, UploadId=upload))
        size = self._client.head_object(**place)["ContentLength"]
        ok = size == _PART_BYTES + 1
        remedy = "" if ok else "use a store that puts parts together"
        return Finding("store", "upload in parts", ok, f"{size} of {_PART_BYTES + 1} bytes", remedy)

    def _put(self, name: str, body: bytes, **conditions: Any) -> str:
        key = f"{self._folder}/{name}"
        self._used.add(key)
        self._client.put_object(Bucket=self._bucket, Key=key, Body=body, **conditions)
        return key

    def _status_of_put(self, name: str, body: bytes, **conditions: Any) -> int:
        from botocore.exceptions import ClientError

        try:
            self._put(name, body, **conditions)
        except ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        return 200

    def _clean_up(self) -> None:
        for key in self._used:
            self._forget(partial(self._client.delete_object, Bucket=self._bucket, Key=key))

    def _forget(self, remove: Callable[[], object]) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        with suppress(BotoCoreError, ClientError):
            remove()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
