"""The embedded stack keeps to loopback, asks for credentials, and starts, ends and mends itself."""

import http.client
import stat
from contextlib import suppress
from pathlib import Path

import boto3
import grpc
import psutil
import pytest
from botocore import UNSIGNED
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from orchestrator.cluster.processes import owned_processes
from orchestrator.stack.embedded import Stack, StackInfo
from orchestrator.stack.files import StackFolder, load_state
from orchestrator.store.s3_store import open_store

PARTS = ("store", "ray", "mlflow")
# Pages of numbers for Prometheus, which Ray cannot protect: nothing can be written or run there.
NUMBERS_ONLY = {"ray.metrics", "ray.autoscaler_metrics", "ray.dashboard_metrics"}


def owned(folder: Path) -> list[psutil.Process]:
    """Every living process of a stack."""
    root = folder.resolve()
    leaders = load_state(StackFolder(root)).leaders
    return [p for part in PARTS for p in owned_processes(f"{root}:{part}", leaders.get(part))]


def request(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Send one request without any credentials."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def status_of(error: ClientError) -> int:
    """The HTTP status that an S3 error came with."""
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


@pytest.fixture
def strangers(stack_info: StackInfo) -> list[BaseClient]:
    """S3 clients without credentials, with foreign ones, and with a wrong secret."""
    key = stack_info.environment["AWS_ACCESS_KEY_ID"]
    known = [{"aws_access_key_id": "AKIA", "aws_secret_access_key": "guess"}]
    known.append({"aws_access_key_id": key, "aws_secret_access_key": "guess"})
    session = boto3.session.Session(region_name="us-east-1")
    url = stack_info.store_url
    return [
        session.client("s3", endpoint_url=url, config=Config(signature_version=UNSIGNED)),
        *(session.client("s3", endpoint_url=url, **pair) for pair in known),
    ]


def test_every_listener_is_on_loopback(stack: Stack, stack_info: StackInfo) -> None:
    """A store or a Ray head that the network can reach is somebody else's computer."""
    found = []
    for process in owned(stack_info.folder):
        with suppress(psutil.NoSuchProcess):  # Ray starts and ends helpers all the time
            found += [
                (process.name(), listener.laddr.ip, listener.laddr.port)
                for listener in process.net_connections("inet")
                if listener.status in {psutil.CONN_LISTEN, psutil.CONN_NONE} and not listener.raddr
            ]
    assert len(found) > 15
    allowed = {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert [one for one in found if one[1] not in allowed] == []


def test_unix_sockets_are_closed_to_other_users(stack_info: StackInfo) -> None:
    """A socket in the file system is a door as well."""
    paths = {
        Path(connection.laddr)
        for process in owned(stack_info.folder)
        for connection in process.net_connections("unix")
        if str(connection.laddr).startswith("/")
    }
    assert paths
    open_to_others = 0o077
    exposed = [
        path
        for path in paths
        if path.exists()
        and not any(_mode(parent) & open_to_others == 0 for parent in (path, *path.parents))
    ]
    assert exposed == []


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_closed_to_other_users(stack_info: StackInfo) -> None:
    """Whoever reads them is let in everywhere."""
    assert _mode(stack_info.folder) == 0o700
    files = [path for path in (stack_info.folder / "secrets").rglob("*") if path.is_file()]
    assert len(files) == 5
    assert {_mode(path) for path in files} == {0o600}
    assert _mode(stack_info.folder / "stack.json") == 0o600


def test_store_refuses_strangers(strangers: list[BaseClient], stack_info: StackInfo) -> None:
    """Neither reading, writing, listing nor deleting is allowed without the stack's secret."""
    open_store(stack_info.environment["DDPMCTL_STORE"]).put("test-stack/kept", b"x")
    here = {"Bucket": "ddpmctl", "Key": "store/test-stack/kept"}
    for stranger in strangers:
        for attempt in (
            lambda s: s.list_buckets(),
            lambda s: s.list_objects_v2(Bucket="ddpmctl"),
            lambda s: s.get_object(**here),
            lambda s: s.put_object(**here, Body=b"y"),
            lambda s: s.delete_object(**here),
            lambda s: s.delete_bucket(Bucket="ddpmctl"),
            lambda s: s.create_bucket(Bucket="theirs"),
        ):
            with pytest.raises(ClientError) as refusal:
                attempt(stranger)
            assert status_of(refusal.value) == 403
    assert open_store(stack_info.environment["DDPMCTL_STORE"]).get("test-stack/kept").body == b"x"


def test_no_port_serves_a_stranger(stack_info: StackInfo) -> None:
    """Ports behind the S3 and Jobs addresses must not lead around them."""
    ports = load_state(StackFolder(stack_info.folder)).ports
    served: list[tuple[str, str, str, int]] = []
    for name, port in ports.items():
        for method, path, body in (
            ("GET", "/ddpmctl/store/test-stack/kept", None),
            ("GET", "/buckets/ddpmctl/?limit=10", None),
            ("DELETE", "/buckets/ddpmctl?recursive=true", None),
            ("GET", "/col/delete?collection=ddpmctl", None),
            ("GET", "/dir/status", None),
            ("POST", "/api/jobs/", b'{"entrypoint": "true"}'),
            ("GET", "/api/jobs/", None),
            ("GET", "/nodes?view=summary", None),
            ("POST", "/get_or_create_runtime_env", b"{}"),
            ("POST", "/api/2.0/mlflow/experiments/search", b'{"max_results": 5}'),
            ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/x", None),
            ("GET", "/ajax-api/2.0/mlflow/runs/search", None),
        ):
            status, _ = request(port, method, path, body)
            if status < 400 and status != 0 and not (name in NUMBERS_ONLY and method == "GET"):
                served.append((name, method, path, status))
    assert served == []
    everything = open_store(stack_info.environment["DDPMCTL_STORE"])
    everything.put("test-stack/after", b"")


@pytest.mark.parametrize(("path", "body"), [("/api/jobs/", b'{"entrypoint": "id"}'), ("/", None)])
def test_ray_agents_refuse_strangers(stack_info: StackInfo, path: str, body: bytes | None) -> None:
    """Code could be run through the agents as well as through the head."""
    ports = load_state(StackFolder(stack_info.folder)).ports
    for name in ("ray.agent", "ray.runtime_env"):
        assert request(ports[name], "POST" if body else "GET", path, body)[0] == 401
    assert request(ports["ray.dashboard"], "POST", "/api/jobs/", body or b"{}")[0] == 401


def test_mlflow_answers_through_any_tunnel_and_under_no_other_name(stack_info: StackInfo) -> None:
    """A web page must not reach the server by a name of its own (DNS rebinding)."""
    token = stack_info.environment["MLFLOW_TRACKING_TOKEN"]
    port = load_state(StackFolder(stack_info.folder)).ports["mlflow"]

    def status(host: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        headers = {"Host": host, "Authorization": f"Bearer {token}"}
        path = "/ajax-api/2.0/mlflow/experiments/search?max_results=1"
        connection.request("GET", path, None, headers)
        answer = connection.getresponse().status
        connection.close()
        return answer

    own = (f"127.0.0.1:{port}", "127.0.0.1:15000", "localhost:15000", "localhost", "[::1]:15000")
    assert [status(host) for host in own] == [200] * len(own)
    others = ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil:80")
    assert [status(host) for host in others] == [403] * len(others)


def grpc_code(channel: grpc.Channel, method: str) -> str:
    """Call a method with an empty message and return the name of the status."""
    try:
        channel.unary_unary(method)(b"", timeout=5, wait_for_ready=False)
    except grpc.RpcError as error:
        return str(error.code().name)
    finally:
        channel.close()
    return "OK"


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("ray.gcs", "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"),
        ("ray.gcs", "/ray.rpc.InternalKVGcsService/InternalKVKeys"),
        ("ray.gcs", "/ray.rpc.JobInfoGcsService/GetAllJobInfo"),
        ("ray.client", "/ray.rpc.RayletDriver/ClusterInfo"),
        ("store.master.grpc", "/master_pb.Seaweed/GetMasterConfiguration"),
        ("store.volume.grpc", "/volume_server_pb.VolumeServer/VolumeServerStatus"),
        ("store.filer.grpc", "/filer_pb.SeaweedFiler/GetFilerConfiguration"),
        ("store.s3.grpc", "/s3_lifecycle_pb.SeaweedS3LifecycleInternal/LifecycleDelete"),
        ("store.admin.grpc", "/worker_pb.WorkerService/WorkerStream"),
    ],
)
def test_grpc_refuses_strangers(stack_info: StackInfo, name: str, method: str) -> None:
    """Behind every HTTP server stands a gRPC one, which can do more."""
    port = load_state(StackFolder(stack_info.folder)).ports[name]
    code = grpc_code(grpc.insecure_channel(f"127.0.0.1:{port}"), method)
    assert code in {"UNAUTHENTICATED", "UNAVAILABLE"}


@pytest.mark.parametrize("name", ["store.master.grpc", "store.volume.grpc", "store.filer.grpc"])
def test_store_parts_want_a_certificate(stack_info: StackInfo, name: str) -> None:
    """Knowing the authority is not enough: the caller must hold the stack's certificate."""
    port = load_state(StackFolder(stack_info.folder)).ports[name]
    folder = stack_info.folder / "secrets"
    authority = (folder / "ca.crt").read_bytes()
    method = "/master_pb.Seaweed/GetMasterConfiguration"
    stranger = grpc.ssl_channel_credentials(authority)
    code = grpc_code(grpc.secure_channel(f"127.0.0.1:{port}", stranger), method)
    assert code == "UNAVAILABLE"
    member = grpc.ssl_channel_credentials(
        authority, (folder / "node.key").read_bytes(), (folder / "node.crt").read_bytes()
    )
    code = grpc_code(grpc.secure_channel(f"127.0.0.1:{port}", member), method)
    assert code in {"OK", "UNIMPLEMENTED"}
