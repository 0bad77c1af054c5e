"""The policies of `infra/s3`, enforced by the embedded store's program on users without others."""

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from orchestrator.client.copying import copy_store
from orchestrator.client.garbage import collect_garbage
from orchestrator.client.status import list_jobs
from orchestrator.client.submit import submit_job
from orchestrator.errors import CredentialsExpiredError, OrchestratorError, StoreRefusedError
from orchestrator.jobs.records import RecordStore
from orchestrator.stack.files import StackFolder, load_secrets
from orchestrator.stack.ports import choose_ports
from orchestrator.stack.seaweed import STORE_PORTS, store_part, store_url
from orchestrator.store import keys
from orchestrator.store.conditions import prove_conditions
from orchestrator.store.elsewhere import open_elsewhere
from orchestrator.store.s3_connection import S3Connection
from orchestrator.store.s3_store import S3Store
from tests.integration.commands import ROOT, wait_until
from tests.support.world import train_job

POLICIES = ROOT / "infra" / "s3"
BUCKETS = ("blue", "green", "shared")
# Who is meant, the bucket, the prefix, and by which policy.
USERS = {
    "blue": ("blue", "", "team"),
    "green": ("green", "", "team"),
    "blue-reader": ("blue", "", "reader"),
    "red": ("shared", "red", "team-of-a-prefix"),
    "grey": ("shared", "grey", "team-of-a-prefix"),
    "red-reader": ("shared", "red", "reader-of-a-prefix"),
}
LISTER = "lister"  # may list blue, and read nothing of it
LARGE_BYTES = 20 * 1024**2  # uploaded in parts


def statements(user: str) -> list[dict[str, Any]]:
    """A user's policy as a part of his bucket's."""
    bucket, prefix, role = USERS[user]
    text = (POLICIES / f"{role}.json").read_text("utf-8")
    policy = json.loads(text.replace("BUCKET", bucket).replace("PREFIX", prefix))
    who = {"AWS": [f"arn:aws:iam::000000000000:user/{user}"]}
    return [{**one, "Sid": f"{user}-{one['Sid']}", "Principal": who} for one in policy["Statement"]]


def listing_alone(bucket: str) -> dict[str, Any]:
    """What lets somebody list a bucket and no more."""
    who = {"AWS": [f"arn:aws:iam::000000000000:user/{LISTER}"]}
    where = [f"arn:aws:s3:::{bucket}"]
    return {
        "Sid": "lister", "Effect": "Allow", "Principal": who, "Action": ["s3:ListBucket"],
        "Resource": where,
    }  # fmt: skip


@dataclass
class Server:
    """A server with a bucket and users."""

    url: str
    secret: str
    patch: pytest.MonkeyPatch
    folder: Path

    def client(self, user: str) -> Any:
        """What speaks to it as somebody."""
        session = boto3.session.Session(user, self.secret, region_name="us-east-1")
        return session.client("s3", endpoint_url=self.url)

    def store(self, user: str, uri: str) -> S3Store:
        """A store as a user sees it."""
        profile = self.folder / "config"
        profile.write_text(
            "".join(
                f"[profile {name}]\nregion = us-east-1\nendpoint_url = {self.url}\n"
                f"aws_access_key_id = {name}\naws_secret_access_key = {self.secret}\n"
                for name in ("admin", LISTER, *USERS)
            )
        )
        self.patch.setenv("AWS_CONFIG_FILE", str(profile))
        return open_elsewhere(uri, profile=user)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The embedded store's program as `up` starts it, with users beside its own."""
    root = tmp_path_factory.mktemp("walls")
    folder = StackFolder((root / "home").resolve())
    folder.make()
    part = store_part(folder, load_secrets(folder), ports := choose_ports(STORE_PORTS, {}))
    secret = secrets.token_hex(16)
    users = [
        {
            "name": name,
            "credentials": [{"accessKey": name, "secretKey": secret}],
            "actions": ["Admin"] if name == "admin" else [],
        }
        for name in ("admin", LISTER, *USERS)
    ]
    config = root / "s3.json"
    config.write_text(json.dumps({"identities": users}))
    command = [*part.command, f"-s3.config={config}"]
    with (root / "log").open("wb") as log, pytest.MonkeyPatch.context() as patch:
        process = subprocess.Popen(
            command, cwd=part.folder, env=dict(part.settings), stdout=log, stderr=log
        )
        try:
            server = Server(store_url(ports), secret, patch, root)
            admin = server.client("admin")
            wait_until(lambda: works(lambda: make_buckets(admin)), 120)
            yield server
        finally:
            process.terminate()
            process.wait(30)


def works(act: Callable[[], object]) -> bool:
    """Whether a server already does something."""
    with suppress(Exception):
        act()
        return True
    return False


def make_buckets(admin: Any) -> None:
    """Make the buckets, each with the policies of its users."""
    there = {bucket["Name"] for bucket in admin.list_buckets()["Buckets"]}
    for bucket in BUCKETS:
        if bucket not in there:
            admin.create_bucket(Bucket=bucket)
        found = [
            one for user, place in USERS.items() if place[0] == bucket for one in statements(user)
        ]
        if bucket == "blue":
            found.append(listing_alone(bucket))
        policy = {"Version": "2012-10-17", "Statement": found}
        admin.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
        admin.put_object(Bucket=bucket, Key="proof", Body=b"it takes what has a body")


@pytest.mark.parametrize(("team", "uri"), [("blue", "s3://blue/store"), ("red", "s3://shared/red")])
def test_a_team_can_do_all_that_is_done_in_its_store(
    server: Server, tmp_path: Path, team: str, uri: str
) -> None:
    """A right that is missing shows in the middle of the night, at the first orphaned upload."""
    store = server.store(team, uri)
    prove_conditions(store)
    submit_job(store, train_job(), "job")
    records = RecordStore(store)
    current = records.read("job")
    records.write(current, current.record)
    assert [job.job_id for job in list_jobs(store)] == ["job"]
    large = tmp_path / "large"
    large.write_bytes(secrets.token_bytes(LARGE_BYTES))
    store.put_file("jobs/job/attempts/1/data/x/model", large)
    store.get_file("jobs/job/attempts/1/data/x/model", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    assert not collect_garbage(store).skipped
    for info in list(store.list_objects("")):
        store.delete(info.key)
    assert list(store.list_objects("")) == []


@pytest.mark.parametrize(
    ("user", "elsewhere"),
    [
        ("blue", "s3://green/store"),
        ("blue", "s3://shared/red"),
        ("blue-reader", "s3://green/store"),
        ("red", "s3://shared/grey"),
        ("red", "s3://shared/redder"),
        ("red", "s3://blue/store"),
        ("red-reader", "s3://shared/grey"),
    ],
)
def test_nobody_sees_or_changes_what_is_another_teams(
    server: Server, user: str, elsewhere: str
) -> None:
    """That is the wall: whoever may write to a prefix may run code where its jobs run."""
    admin = server.store("admin", elsewhere)
    admin.put("jobs/a/spec.json", b"theirs")
    stranger = server.store(user, elsewhere)
    for act in (
        lambda: stranger.get("jobs/a/spec.json"),
        lambda: stranger.put("jobs/a/spec.json", b"mine"),
        lambda: stranger.put("queue/b", b"mine", if_absent=True),
        lambda: stranger.delete("jobs/a/spec.json"),
        lambda: list(stranger.list_objects("")),
        lambda: stranger.list_folders("jobs/"),
    ):
        with pytest.raises(StoreRefusedError):
            act()
    assert admin.get("jobs/a/spec.json").body == b"theirs"


@pytest.mark.parametrize(
    ("reader", "team", "uri"),
    [("blue-reader", "blue", "s3://blue/read"), ("red-reader", "red", "s3://shared/red")],
)
def test_a_reader_reads_and_writes_nothing(
    server: Server, reader: str, team: str, uri: str
) -> None:
    """For who looks at jobs, and for a back-up's source."""
    own = server.store(team, uri)
    own.put("jobs/a/spec.json", b"theirs")
    store = server.store(reader, uri)
    assert store.get("jobs/a/spec.json").body == b"theirs"
    assert [info.key for info in store.list_objects(keys.JOBS)] == ["jobs/a/spec.json"]
    for act in (
        lambda: store.put("jobs/a/spec.json", b"mine"),
        lambda: store.put("queue/b", b"mine"),
        lambda: store.delete("jobs/a/spec.json"),
    ):
        with pytest.raises(StoreRefusedError):
            act()
    own.delete("jobs/a/spec.json")


def test_a_back_up_needs_no_more_than_to_read_its_source(server: Server) -> None:
    """Who makes it at night should not be able to delete what it is of."""
    source = server.store("blue", "s3://blue/backed-up")
    source.put("jobs/a/spec.json", b"{}")
    with pytest.raises(OrchestratorError):
        copy_store(
            server.store("red", "s3://blue/backed-up"), server.store("red", "s3://shared/red")
        )
    reading = server.store("blue-reader", "s3://blue/backed-up")
    target = server.store("green", "s3://green/copies/blue")
    assert copy_store(reading, target).copied == 1
    assert target.get("jobs/a/spec.json").body == b"{}"


@pytest.mark.parametrize("user", list(USERS))
def test_no_user_changes_the_walls(server: Server, user: str) -> None:
    """A policy that its own team may rewrite is none."""
    client = server.client(user)
    bucket = USERS[user][0]
    refused = client.exceptions.ClientError
    for act in (
        lambda: client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Statement": []})),
        lambda: client.delete_bucket_policy(Bucket=bucket),
        lambda: client.delete_bucket(Bucket=bucket),
        lambda: client.create_bucket(Bucket=f"own-{os.getpid()}"),
    ):
        with pytest.raises(refused, match="AccessDenied"):
            act()


def test_a_look_that_is_refused_is_told_from_a_key_that_is_unknown(
    server: Server, tmp_path: Path
) -> None:
    """The answer to a HEAD is a bare 403 for both: one is no matter of time, one is waited for."""
    server.store("admin", "s3://blue/looks").put("k", b"theirs")
    store = server.store(LISTER, "s3://blue/looks")
    assert [info.key for info in store.list_objects("")] == ["k"]  # it has served
    for look in (lambda: store.exists("k"), lambda: store.get_file("k", tmp_path / "k")):
        with pytest.raises(StoreRefusedError, match="AccessDenied"):
            look()
    connection = S3Connection(server.client("blue"), "blue", "s3://blue")
    with connection.translated("looks/k", looked_at="looks/k"):
        connection.client.head_object(Bucket="blue", Key="looks/k")
    for key, secret, word in (
        ("blue", "another", "SignatureDoesNotMatch"),
        ("nobody", "another", "InvalidAccessKeyId"),
    ):
        session = boto3.session.Session(key, secret, region_name="us-east-1")
        connection.client = session.client("s3", endpoint_url=server.url)
        with (
            pytest.raises(CredentialsExpiredError, match=word),
            connection.translated("looks/k", looked_at="looks/k"),
        ):
            connection.client.head_object(Bucket="blue", Key="looks/k")
