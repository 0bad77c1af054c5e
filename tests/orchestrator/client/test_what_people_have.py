"""Surroundings that people have: each works, or is one line that says what to do."""

import errno
import os
import re
import resource
import stat
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

import pytest
import requests

from ddpm.compute import compile_obstacle
from orchestrator.client.surroundings import use_stack
from orchestrator.cluster.private_files import make_private_folder, user_folder, write_private
from orchestrator.errors import LocalFolderError, StackError
from orchestrator.stack.embedded import StackInfo
from orchestrator.stack.files import StackFolder, load_secrets
from orchestrator.stack.limits import allow_processes, has_less_than_one_cpu
from orchestrator.stack.parts import without_proxy
from orchestrator.stack.ray_head import RAY_PORTS, ray_part
from orchestrator.store.s3_client import Patience, fresh_client
from tests.support.forked_verbs import call_verbs

LOOKING = ("list", "status a-1", "events", "top --once", "explain a-1", "resubmit a-1 --dry-run")
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
# A kernel without IPv6.
NO_IPV6 = """import errno, socket
class Four(socket.socket):
    def __init__(self, family=-1, *rest, **more):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        super().__init__(family, *rest, **more)
socket.socket, socket.has_ipv6 = Four, False
"""
DEAD = "http://127.0.0.1:9"


class Server(BaseHTTPRequestHandler):
    """Answers everything, and remembers what it was asked."""

    asked: list[str] = []  # noqa: RUF012 - of the one server of a test

    def do_GET(self) -> None:
        """Answer it."""
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815 - the base class looks for it by this name

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """A server on loopback."""
    Server.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("past", ["", "intranet", " a , b "])
def test_the_embedded_stack_is_reached_past_a_proxy_in_any_spelling(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, name: str, past: str
) -> None:
    """By the clients of the store, of Ray's Jobs API and of MLflow; each looks by itself."""
    for variable in [*os.environ]:
        if variable.lower().endswith("_proxy") or variable.startswith("AWS_"):
            monkeypatch.delenv(variable)
    monkeypatch.setenv(name, DEAD)
    monkeypatch.setenv("no_proxy", past)
    environment = {
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        **without_proxy(os.environ),
    }
    for variable in environment:
        monkeypatch.setenv(variable, "")
    use_stack(StackInfo(tmp_path, environment, "", "", tmp_path, ""), lambda _: None)
    fresh_client(Patience(2.0, 2.0, 1)).head_bucket(Bucket="bucket")
    assert requests.get(f"{url}/ray", timeout=5).ok
    assert urllib.request.urlopen(f"{url}/other", timeout=5).status == 200  # noqa: S310 - ours
    assert Server.asked == ["/bucket", "/ray", "/other"]


def test_a_ray_address_left_over_reaches_no_part_of_the_stack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is named once, and the stack's own is used."""
    monkeypatch.setenv("RAY_ADDRESS", "ray://old:10001")
    said: list[str] = []
    own = {"RAY_ADDRESS": "http://127.0.0.1:1"}
    use_stack(StackInfo(tmp_path, own, "", "", tmp_path, ""), said.append)
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"
    assert "RAY_ADDRESS" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setup", "variables"),
    [
        ("", {"HOME": None, "XDG_CACHE_HOME": None, "MPLCONFIGDIR": None}),
        ("", {"HOME": "/proc/nothing", "MPLCONFIGDIR": None}),  # where nobody can write
        (
            # No entry in passwd, as in a container that runs under a number.
            "import pwd\ndef no(uid): raise KeyError(uid)\npwd.getpwuid = no",
            dict.fromkeys(("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")),
        ),
        ("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))", {}),
        ("os.umask(0o077)", {}),
        (
            NO_IPV6,
            {},
        ),
    ],
    ids=["no HOME", "HOME is read-only", "no passwd entry", "64 files", "umask 077", "no IPv6"],
)
def test_verbs_work_where_people_are(setup: str, variables: dict[str, Any]) -> None:
    """What a verb does not need may be missing."""
    found, errors = call_verbs(LOOKING, setup=setup, **variables)
    assert {verb: done.code for verb, done in found.items()} == dict.fromkeys(LOOKING, 0)
    assert "Traceback" not in errors
    assert "a fault of ddpmctl" not in errors


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_what_is_private_is_so_under_any_umask(tmp_path: Path, mask: int) -> None:
    """Neither open to others nor closed to its owner."""
    before = os.umask(mask)
    try:
        make_private_folder(tmp_path / "a" / "b")
        write_private(tmp_path / "a" / "b" / "c", b"x")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / "a" / part).stat().st_mode) for part in ("b", "b/c")]
    assert modes == [0o700, 0o600]


def test_a_machine_without_a_place_for_temporary_files_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python's own words name four folders and no way out."""

    def none() -> NoReturn:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(LocalFolderError, match=r"No usable temporary directory.*set TMPDIR"):
        user_folder("ddpmctl-cache")


def test_temporary_files_that_cannot_be_made_name_the_place_and_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full /tmp, and one that is mounted read-only, stop before any work is done."""
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    with pytest.raises(LocalFolderError, match=r"cannot make the folder /proc/.*TMPDIR"):
        user_folder("ddpmctl-cache")


def test_where_no_program_may_run_nothing_is_compiled_and_the_place_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A job then runs eager and its record says why; compiled, it failed in the smoke test."""
    if compile_obstacle("cpu") is not None:
        pytest.skip("nothing can be compiled here at all")
    flags = os.statvfs_result((1, 1, 1, 1, 1, 1, 1, 1, os.ST_NOEXEC, 255))
    monkeypatch.setattr(os, "statvfs", lambda _folder: flags)
    told = compile_obstacle("cpu")
    assert told is not None
    assert told.startswith(tempfile.gettempdir())
    assert "set TMPDIR" in told


@pytest.mark.parametrize(
    ("soft", "hard", "told"),
    [(256, 4096, "4096"), (256, 512, "may open 512 files"), (2048, 2048, "2048")],
)
def test_the_stack_takes_the_open_files_that_it_may_have(soft: int, hard: int, told: str) -> None:
    """256 is the default of some systems; Ray then fails in odd places."""
    code = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "from orchestrator.errors import StackError\n"
        "from orchestrator.stack.limits import allow_open_files\n"
        "try:\n"
        "    allow_open_files()\n"
        "    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
        "except StackError as error:\n"
        "    print(error)\n"
    )
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip("this machine lets nobody open so many files")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told in done.stdout
    assert ("ulimit -Hn" in done.stdout) == (hard < 1024)


@pytest.mark.parametrize(
    ("limit", "told"), [((150, 150), "may run 150 .*ulimit -Hu"), ((150, 4096), "4096")]
)
def test_the_stack_takes_the_processes_that_it_may_have(limit: tuple[int, int], told: str) -> None:
    """With 150 of them Ray's head hung for a minute, three times, and named no limit."""
    code = (
        "import os, resource\n"
        f"resource.setrlimit(resource.RLIMIT_NPROC, {limit})\n"
        "os.getuid = lambda: 4242  # whom the limit does not hold is root alone\n"
        "from orchestrator.errors import StackError\n"
        "from orchestrator.stack.limits import allow_processes\n"
        "try:\n"
        "    allow_processes(())\n"
        "    print(resource.getrlimit(resource.RLIMIT_NPROC)[0])\n"
        "except StackError as error:\n"
        "    print(error)\n"
    )
    if 0 <= resource.getrlimit(resource.RLIMIT_NPROC)[1] < limit[1]:
        pytest.skip("this machine lets nobody run so many processes")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.search(told, done.stdout)


@pytest.mark.parametrize("most", ["100", "2048", "max", "x"])
def test_a_container_that_may_run_too_few_processes_is_named(tmp_path: Path, most: str) -> None:
    """Docker's --pids-limit; the file is where a container sees its own."""
    (tmp_path / "pids.max").write_text(f"{most}\n")
    places = [tmp_path / "none", tmp_path / "pids.max"]
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    try:
        if most == "100":
            with pytest.raises(
                StackError, match=r"container may run 100 .*pids\.max.*--pids-limit"
            ):
                allow_processes(places)
        else:
            allow_processes(places)
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))


@pytest.mark.parametrize(
    ("quota", "is_part"),
    [("50000 100000\n", True), ("100000 100000\n", False), ("max 100000\n", False), ("x", False)],
)
def test_half_a_processor_counts_as_one(tmp_path: Path, quota: str, is_part: bool) -> None:
    """Ray rounds it down to none, and no job could ever start."""
    path = tmp_path / "cpu.max"
    path.write_text(quota)
    assert has_less_than_one_cpu(path) is is_part
    old = [tmp_path / name for name in ("quota", "period")]
    for file, text in zip(old, ("-1", "100000"), strict=True):
        file.write_text(text)
    assert not has_less_than_one_cpu(tmp_path / "none", *old)
    old[0].write_text("50000")
    assert has_less_than_one_cpu(tmp_path / "none", *old)
    assert not has_less_than_one_cpu(*[tmp_path / "none"] * 3)


def ray_command(folder: StackFolder) -> tuple[str, ...]:
    """Return how the stack's Ray head is started."""
    ports = dict(zip(RAY_PORTS, range(20_000, 20_100), strict=False))
    folder.make()
    return ray_part(folder, load_secrets(folder), ports, {}, num_cpus=None, num_gpus=None).command


def test_rays_sessions_lie_in_a_folder_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old /tmp/ray of another user is not looked at; that user's folder of ours is refused."""
    folder = StackFolder(tmp_path / ".ddpmctl")
    sessions = next(o for o in ray_command(folder) if o.startswith("--temp-dir="))
    assert sessions == f"--temp-dir={folder.sockets}/ray"
    assert stat.S_IMODE(folder.sockets.stat().st_mode) == 0o700
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    with pytest.raises(LocalFolderError, match="is not a folder of this user; move it away"):
        make_private_folder(folder.sockets)
    folder.sockets.rmdir()


def test_a_small_dev_shm_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker gives 64 MiB; Ray then keeps its objects in files, if it is asked for little."""
    from ray._private import services, utils

    folder = StackFolder(tmp_path / ".ddpmctl")
    option = next(o for o in ray_command(folder) if o.startswith("--object-store-memory="))
    monkeypatch.setattr(utils, "get_shared_memory_bytes", lambda: 64 * 2**20)
    place, _, size = services.determine_plasma_store_config(
        int(option.partition("=")[2]), temp_dir=str(tmp_path)
    )
    assert place == str(tmp_path)
    assert size == 400_000_000
    folder.sockets.rmdir()
