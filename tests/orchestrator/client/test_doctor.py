# ruff: noqa: D102, N803  (methods and arguments have the names of the S3 client and of http.server)
"""What `doctor` says of stores, clusters and servers that do not keep their promises."""

import base64
import hashlib
import io
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from orchestrator.client.doctor.findings import Finding
from orchestrator.client.doctor.run import diagnose
from orchestrator.client.doctor.servers import diagnose_mlflow, diagnose_ray
from orchestrator.client.doctor.store import StoreProbe, diagnose_store


class FakeS3:
    """As much of an S3 client as the probe uses; promises can be taken back one by one."""

    def __init__(self, *broken: str, skew_s: float = 0) -> None:
        self.broken = set(broken)
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, list[bytes]] = {}
        self.skew = timedelta(seconds=skew_s)
        self.meta = type("Meta", (), {"endpoint_url": "http://fake"})

    def list_objects_v2(self, *, Prefix: str, **_: Any) -> dict[str, Any]:
        if "network" in self.broken:
            raise EndpointConnectionError(endpoint_url="http://fake")
        if "rights" in self.broken:
            raise refusal("AccessDenied", 403, "ListObjectsV2")
        if "bucket" in self.broken:
            raise refusal("NoSuchBucket", 404, "ListObjectsV2")
        found = [{"Key": key} for key in self.objects if key.startswith(Prefix)]
        now = format_datetime(datetime.now(UTC) + self.skew, usegmt=True)
        return {"Contents": found, "ResponseMetadata": {"HTTPHeaders": {"date": now}}}

    def put_object(self, *, Key: str, Body: bytes, **given: Any) -> dict[str, str]:
        if "absent" not in self.broken and "IfNoneMatch" in given and Key in self.objects:
            raise refusal("PreconditionFailed", 412, "PutObject")
        is_other = given.get("IfMatch") not in {None, self._etag(Key)}
        if "match" not in self.broken and Key in self.objects and is_other:
            raise refusal("PreconditionFailed", 412, "PutObject")
        if "gone" not in self.broken and "IfMatch" in given and Key not in self.objects:
            raise refusal("NoSuchKey", 404, "PutObject")
        digest = base64.b64encode(hashlib.sha256(Body).digest()).decode()
        if "checksum" not in self.broken and given.get("ChecksumSHA256", digest) != digest:
            raise refusal("BadDigest", 400, "PutObject")
        self.objects[Key] = Body
        return {"ETag": self._etag(Key)}

    def get_object(self, *, Key: str, **_: Any) -> dict[str, Any]:
        return {"Body": io.BytesIO(self.objects[Key])}

    def head_object(self, *, Key: str, **_: Any) -> dict[str, Any]:
        return {"ETag": self._etag(Key), "ContentLength": len(self.objects[Key])}

    def delete_object(self, *, Key: str, **_: Any) -> None:
        self.objects.pop(Key, None)

    def create_multipart_upload(self, *, Key: str, **_: Any) -> dict[str, str]:
        if "parts" in self.broken:
            raise refusal("NotImplemented", 501, "CreateMultipartUpload")
        self.uploads[Key] = []
        return {"UploadId": Key}

    def upload_part(self, *, UploadId: str, Body: bytes, **_: Any) -> dict[str, str]:
        self.uploads[UploadId].append(Body)
        return {"ETag": hashlib.md5(Body, usedforsecurity=False).hexdigest()}

    def complete_multipart_upload(self, *, UploadId: str, **_: Any) -> None:
        self.objects[UploadId] = b"".join(self.uploads.pop(UploadId))

    def abort_multipart_upload(self, *, UploadId: str, **_: Any) -> None:
        if UploadId not in self.uploads:
            raise refusal("NoSuchUpload", 404, "AbortMultipartUpload")
        del self.uploads[UploadId]

    def _etag(self, key: str) -> str:
        return hashlib.md5(self.objects.get(key, b""), usedforsecurity=False).hexdigest()


def refusal(code: str, status: int, operation: str) -> ClientError:
    """The error of an S3 client."""
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)


def probe(client: FakeS3) -> list[Finding]:
    """Look at a store."""
    return StoreProbe(client, "bucket", "prefix/doctor/1").run()  # type: ignore[arg-type]


def failed(findings: list[Finding]) -> list[str]:
    """The names of the checks that failed."""
    assert all(one.remedy for one in findings if not one.ok)
    return [one.check for one in findings if not one.ok]


def test_good_store_passes_every_check() -> None:
    """Who is told that all is well must be able to rely on it."""
    findings = probe(FakeS3())
    assert failed(findings) == []
    assert len(findings) == 8


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        ("absent", "put if absent"),
        ("match", "put if unchanged"),
        ("gone", "put if unchanged, of what is gone"),
        ("parts", "upload in parts"),
        ("network", "reachable"),
        ("rights", "reachable"),
        ("bucket", "reachable"),
    ],
)
def test_broken_promise_is_named_alone(broken: str, check: str) -> None:
    """A store that ignores conditions lets two orchestrators overwrite each other silently."""
    assert failed(probe(FakeS3(broken))) == [check]


def test_unchecked_checksum_is_said_but_is_no_failure() -> None:
    """Our manifests carry their own SHA-256, so such a store can still be used."""
    findings = probe(FakeS3("checksum"))
    assert failed(findings) == []
    assert any("does not compare" in one.detail for one in findings)


@pytest.mark.parametrize(("skew_s", "expected"), [(5, []), (-300, ["clock"]), (300, ["clock"])])
def test_clock_that_is_far_off_is_named(skew_s: float, expected: list[str]) -> None:
    """Signed requests fail 15 minutes off, and it is hard to see why."""
    assert failed(probe(FakeS3(skew_s=skew_s))) == expected


@pytest.mark.parametrize("broken", ["", "absent", "match", "parts"])
def test_probe_leaves_nothing_behind(broken: str) -> None:
    """A look at a store must not fill it."""
    client = FakeS3(broken)
    probe(client)
    assert client.objects == {}
    assert client.uploads == {}


def surround(patch: pytest.MonkeyPatch, **variables: str) -> None:
    """Leave of what configures clients these variables alone."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "RAY_", "MLFLOW_", "DDPMCTL_")):
            patch.delenv(name)
    patch.setenv("AWS_CONFIG_FILE", os.devnull)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in variables.items():
        patch.setenv(name, value)


def test_nothing_there_is_findings_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """`doctor` is run when things are broken, so it must not break."""
    nowhere = "http://127.0.0.1:9"
    surround(
        monkeypatch,
        DDPMCTL_STORE="s3://bucket/prefix",
        AWS_ENDPOINT_URL_S3=nowhere,
        AWS_ACCESS_KEY_ID="a",
        AWS_SECRET_ACCESS_KEY="b",
        RAY_ADDRESS=nowhere,
        MLFLOW_TRACKING_URI=nowhere,
    )
    findings = diagnose()
    assert [(one.part, one.check) for one in findings] == [
        ("store", "reachable"),
        ("ray", "reachable"),
        ("mlflow", "reachable"),
    ]
    assert len(failed(findings)) == 3


def test_unset_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look on a new machine finds nothing configured."""
    surround(monkeypatch)
    findings = diagnose()
    assert len(failed(findings)) == 3
    assert all("ddpmctl up" in one.remedy for one in findings)


class Servant(BaseHTTPRequestHandler):
    """Answers by path from the server's table."""

    def do_GET(self) -> None:
        table, token = self.server.table, self.server.token  # type: ignore[attr-defined]
        allowed = token is None or self.headers.get("Authorization") == f"Bearer {token}"
        body = table.get(self.path.partition("?")[0]) if allowed else b"who?"
        self.send_response(401 if not allowed else 404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """A server on loopback whose `table` and `token` a test sets."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Servant) as server:
        server.table, server.token = {}, None  # type: ignore[attr-defined]
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def ray_table(version: str, cpus: float) -> dict[str, bytes]:
    """What a head with one node answers."""
    raylet = {"state": "ALIVE", "resourcesTotal": {"CPU": cpus, "GPU": 2.0}}
    nodes = {"data": {"summary": [{"raylet": raylet}]}}
    return {
        "/api/version": json.dumps({"ray_version": version}).encode(),
        "/api/jobs/": b"[]",
        "/nodes": json.dumps(nodes).encode(),
    }


@pytest.mark.parametrize(
    ("version", "cpus", "sent", "expected"),
    [
        ("2.60.0", 4, "secret", []),
        ("2.59.0", 4, "secret", ["version"]),
        ("2.60.0", 0, "secret", ["resources"]),
        ("2.60.0", 4, "guess", ["token"]),
    ],
)
def test_ray_cluster_is_judged_by_what_it_answers(
    server: ThreadingHTTPServer,
    version: str,
    cpus: float,
    sent: str,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wrong token or version otherwise shows only when the first job dies."""
    server.table, server.token = ray_table(version, cpus), "secret"  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{server.server_port}"
    surround(monkeypatch, RAY_ADDRESS=url, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=sent)
    assert failed(diagnose_ray()) == expected


def test_cluster_that_forgot_its_token_is_named(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user believes that it is closed."""
    server.table = ray_table("2.60.0", 4)  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{server.server_port}"
    surround(monkeypatch, RAY_ADDRESS=url, RAY_AUTH_MODE="token")
    assert failed(diagnose_ray()) == ["token"]
    surround(monkeypatch, RAY_ADDRESS=url)
    assert failed(diagnose_ray()) == []


@pytest.mark.parametrize(
    ("version", "sent", "expected"),
    [("3.1.0", "secret", []), ("2.9.0", "secret", ["version"]), ("3.1.0", "", ["credentials"])],
)
def test_mlflow_is_judged_by_what_it_answers(
    server: ThreadingHTTPServer,
    version: str,
    sent: str,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that answers on its port may still turn every run away."""
    server.token = "secret"  # type: ignore[attr-defined]
    server.table = {  # type: ignore[attr-defined]
        "/api/2.0/mlflow/experiments/search": b'{"experiments": []}',
        "/version": version.encode(),
    }
    url = f"http://127.0.0.1:{server.server_port}"
    surround(monkeypatch, MLFLOW_TRACKING_URI=url, MLFLOW_TRACKING_TOKEN=sent)
    assert failed(diagnose_mlflow()) == expected


@pytest.mark.parametrize("address", ["http://[::1", "http://", "http://a b", "https://:port"])
def test_an_address_that_is_none_is_a_finding(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bracket that is missing was a traceback, and with `-o json` an empty page."""
    surround(monkeypatch, RAY_ADDRESS=address, MLFLOW_TRACKING_URI=address)
    assert failed(diagnose_ray()) == failed(diagnose_mlflow()) == ["reachable"]


def test_credentials_in_an_address_count_and_are_not_shown(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program was let in with them, while doctor looked for a host of that name."""
    server.table = {  # type: ignore[attr-defined]
        "/api/2.0/mlflow/experiments/search": b'{"experiments": []}',
        "/version": b"3.1.0",
    }
    url = f"http://user:secret@127.0.0.1:{server.server_port}"
    surround(monkeypatch, MLFLOW_TRACKING_URI=url)
    findings = diagnose_mlflow()
    assert failed(findings) == []
    assert not any("secret" in one.detail for one in findings)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"AWS_PROFILE": "nowhere"}, "AWS_PROFILE"),
        ({"AWS_DEFAULT_PROFILE": "nowhere"}, "AWS_DEFAULT_PROFILE"),
        ({"AWS_REGION": "eu west"}, "AWS_REGION"),
        ({"AWS_ENDPOINT_URL_S3": "not a url"}, "AWS_ENDPOINT_URL_S3"),
        (
            {
                "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
                "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
            },
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
        ),
        ({"DDPMCTL_STORE": "s3://My Bucket/x"}, "DDPMCTL_STORE"),
        (
            {
                "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9/bucket",
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "b",
            },
            "leave /bucket out of it",
        ),
    ],
)
def test_the_setting_that_cures_a_store_is_named(
    variables: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads "does not answer" looks at the network for an hour."""
    surround(monkeypatch, **{"DDPMCTL_STORE": "s3://bucket/prefix", **variables})
    (finding,) = diagnose_store()
    assert not finding.ok
    assert told in finding.detail + finding.remedy
