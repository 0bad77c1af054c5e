"""What the embedded stack does when it is started twice, loses a part, and is ended."""

import http.client
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from orchestrator.cluster.processes import owned_processes
from orchestrator.stack.embedded import Stack, StackInfo
from orchestrator.stack.files import StackFolder, load_state
from orchestrator.store.s3_store import open_store

PARTS = ("store", "ray", "mlflow")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that these tests may break; each begins with `up`."""
    # Deeper than the 107 bytes that the path of a Unix socket may have.
    folder = tmp_path_factory.mktemp("a project, deep down") / ("x" * 120) / ".ddpmctl"
    stack = Stack(folder, num_cpus=2, num_gpus=2)
    yield stack
    stack.down()
    shutil.rmtree(StackFolder(folder.resolve()).sockets, ignore_errors=True)


def leaders(info: StackInfo) -> dict[str, int]:
    """The pid of each part's first process."""
    state = load_state(StackFolder(info.folder))
    return {name: leader.pid for name, leader in state.leaders.items()}


def owned(info: StackInfo, part: str) -> list[psutil.Process]:
    """Every living process of a part."""
    leader = load_state(StackFolder(info.folder)).leaders.get(part)
    return owned_processes(f"{info.folder}:{part}", leader)


def by_name(info: StackInfo, part: str, *names: str) -> list[psutil.Process]:
    """A part's processes with one of these names; others may end while they are asked."""
    found = []
    for process in owned(info, part):
        with suppress(psutil.NoSuchProcess):
            if process.name() in names:
                found.append(process)
    return found


def named(info: StackInfo, word: str) -> list[psutil.Process]:
    """Every living process on the machine whose command line names the stack's folders."""
    places = (str(info.folder), str(StackFolder(info.folder).sockets))
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if word in line and any(place in line for place in places):
            found.append(process)
    return found


def jobs_api(info: StackInfo, method: str, path: str, body: object = None) -> object:
    """Call Ray's Jobs API with the stack's token."""
    host = info.ray_url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=30)
    token = info.ray_token_file.read_text()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request(method, path, json.dumps(body) if body else None, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status == 200, content
    return json.loads(content)


def use(info: StackInfo, patch: pytest.MonkeyPatch) -> None:
    """Point this process's clients to a stack."""
    for name, value in info.environment.items():
        patch.setenv(name, value)


def test_second_up_changes_nothing(own: Stack) -> None:
    """People run `up` to be sure that it is up; that must not disturb what runs."""
    first = own.up()
    pids = leaders(first)
    said: list[str] = []
    second = own.up(said.append)
    assert second.started == ()
    assert said == []
    assert leaders(second) == pids
    assert second.environment == first.environment
    assert [part.is_running for part in own.status()] == [True, True, True]


def test_dead_store_comes_back_with_its_objects(
    own: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was acknowledged survives kill -9 of the store, and nothing else is restarted."""
    info = own.up()
    use(info, monkeypatch)
    store = open_store(info.environment["DDPMCTL_STORE"])
    store.put("kept", b"acknowledged")
    before = leaders(info)
    psutil.Process(before["store"]).kill()
    again = own.up()
    assert again.started == ("store",)
    assert again.environment == info.environment
    assert leaders(again)["ray"] == before["ray"]
    assert open_store(info.environment["DDPMCTL_STORE"]).get("kept").body == b"acknowledged"


def test_dead_ray_head_leaves_nothing_to_the_next_one(own: Stack) -> None:
    """A driver of the old head would write to the store beside its successor."""
    info = own.up()
    jobs_api(info, "POST", "/api/jobs/", {"entrypoint": "sleep 613", "submission_id": "asleep"})
    deadline = time.monotonic() + 60
    while not (drivers := by_name(info, "ray", "sleep")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    head = by_name(info, "ray", "gcs_server", "raylet")
    for process in [psutil.Process(leaders(info)["ray"]), *head]:
        with suppress(psutil.NoSuchProcess):  # one takes the other with it
            process.kill()
    again = own.up()
    assert again.started == ("ray",)
    assert [p for p in drivers if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert len(by_name(again, "ray", "gcs_server")) == 1
    assert jobs_api(again, "GET", "/api/jobs/") == []


def test_ray_jobs_inherit_the_way_to_the_store(own: Stack) -> None:
    """Credentials never stand in a job's description, so they must come from the node."""
    info = own.up()
    wanted = ("DDPMCTL_STORE", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_URI", "PATH")
    shown = "; ".join(f'test -n "${name}"' for name in wanted)
    body = {"entrypoint": f"set -e; {shown}; python -c 'import orchestrator'"}
    answer = jobs_api(info, "POST", "/api/jobs/", body)
    assert isinstance(answer, dict)
    job_path = f"/api/jobs/{answer['submission_id']}"
    deadline = time.monotonic() + 90
    while (status := jobs_api(info, "GET", job_path)["status"]) not in {"SUCCEEDED", "FAILED"}:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert status == "SUCCEEDED"


def test_down_ends_everything_and_keeps_the_data(
    own: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that stays holds ports, memory and locks; a lost object is a lost result."""
    info = own.up()
    use(info, monkeypatch)
    open_store(info.environment["DDPMCTL_STORE"]).put("stays", b"here")
    pids = [process.pid for part in PARTS for process in owned(info, part)]
    assert len(pids) > 10
    assert own.down() == PARTS
    assert [pid for pid in pids if is_alive(pid)] == []
    assert named(info, "") == []
    assert own.down() == ()
    assert [part.is_running for part in own.status()] == [False, False, False]
    again = own.up()
    assert again.environment == info.environment
    assert open_store(info.environment["DDPMCTL_STORE"]).get("stays").body == b"here"


def is_alive(pid: int) -> bool:
    """Whether a pid belongs to a process that is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
