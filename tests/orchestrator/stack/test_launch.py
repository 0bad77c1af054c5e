"""A part of the stack is started once, again when it must be, and fails in one line."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.cluster.processes import owned_processes, start_detached
from orchestrator.errors import StackError
from orchestrator.stack.files import StackFolder, StackState, load_state
from orchestrator.stack.launch import Launcher, PortTakenError
from orchestrator.stack.parts import Part
from orchestrator.stack.ports import choose_ports, is_free

SERVE = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1])));"
FOREVER = "time.sleep(600)"
# `up` with two small servers for parts, of which the second never does its work.
UP = """import signal, sys
from orchestrator.cli.main import main
from orchestrator.stack.embedded import Stack
from tests.orchestrator.stack.test_launch import Setting
from orchestrator.stack.files import StackFolder
from dataclasses import replace
from pathlib import Path

setting = Setting(StackFolder(Path(sys.argv.pop())))
quick, port = setting.part(), setting.port
slow = replace(quick, name="store", ports=(), command=(*quick.command[:-1], str(port + 1)))
slow = replace(slow, is_ready=lambda: False)
Stack._parts = lambda _self, _secrets, _ports: [quick, slow]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has none
main()
"""


class Setting:
    """A folder, a state, and what was said."""

    def __init__(self, folder: StackFolder) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.port = choose_ports(["mlflow"], {})["mlflow"]

    def launcher(self) -> Launcher:
        """A new command's launcher."""
        return Launcher(self.folder, load_state(self.folder), self.said.append)

    def part(self, program: str = SERVE + FOREVER, **settings: str) -> Part:
        """A part that listens on the port."""
        return Part(
            name="mlflow",
            command=(sys.executable, "-c", program, str(self.port)),
            settings=settings,
            inherits=True,
            folder=self.folder.root,
            ports=(self.port,),
            prepare=lambda: None,
            is_ready=lambda: not is_free(self.port),
        )

    def processes(self) -> list[psutil.Process]:
        """What runs now."""
        return owned_processes(f"{self.folder.root}:mlflow", None)


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    """A stack's folder with nothing running; everything is ended afterwards."""
    folder = StackFolder(tmp_path / ".ddpmctl")
    folder.make()
    setting = Setting(folder)
    yield setting
    setting.launcher().end("mlflow")
    shutil.rmtree(folder.sockets)


def test_running_part_is_left_alone(setting: Setting) -> None:
    """Another command finds it by what the first one wrote down."""
    assert setting.launcher().bring_up(setting.part()) is True
    (first,) = setting.processes()
    assert setting.launcher().bring_up(setting.part()) is False
    assert setting.processes() == [first]


def test_part_is_started_again_when_its_settings_changed(setting: Setting) -> None:
    """A Ray head that points to the store's old port is of no use."""
    setting.launcher().bring_up(setting.part(AWS_ENDPOINT_URL_S3="http://old"))
    (first,) = setting.processes()
    assert setting.launcher().bring_up(setting.part(AWS_ENDPOINT_URL_S3="http://new")) is True
    (second,) = setting.processes()
    assert second != first


def test_dead_part_is_started_again(setting: Setting) -> None:
    """That is what `up` is for."""
    setting.launcher().bring_up(setting.part())
    (first,) = setting.processes()
    first.kill()
    first.wait(timeout=10)
    assert setting.launcher().bring_up(setting.part()) is True
    assert len(setting.processes()) == 1


def test_leftovers_go_before_a_new_start(setting: Setting) -> None:
    """Even if the file that named them is lost, two servers must not share the data."""
    setting.launcher().bring_up(setting.part())
    (first,) = setting.processes()
    setting.folder.state.unlink()
    assert setting.launcher().bring_up(setting.part()) is True
    (second,) = setting.processes()
    assert second != first


def test_failed_start_names_the_reason(setting: Setting) -> None:
    """The log's telling line is shown, not its last."""
    program = "import sys; print('Error: no space left on device'); print('bye'); sys.exit(3)"
    with pytest.raises(StackError, match=r"stopped while starting: Error: no space left.*log$"):
        setting.launcher().bring_up(setting.part(program))
    assert setting.processes() == []
    assert load_state(setting.folder) == StackState()


def test_taken_port_is_told_apart(setting: Setting) -> None:
    """Other ports help against this failure, and against no other one."""
    never = setting.part("import sys; sys.exit(1)")
    with (
        socket.create_server(("127.0.0.1", setting.port)) as taken,
        pytest.raises(PortTakenError, match=str(taken.getsockname()[1])),
    ):
        setting.launcher().bring_up(Part(**{**vars(never), "is_ready": lambda: False}))


def test_stopped_launcher_gives_up_and_ends_what_it_began(setting: Setting) -> None:
    """After Ctrl-C nothing may stay behind."""
    launcher = setting.launcher()
    launcher.stop()
    with pytest.raises(StackError):
        launcher.bring_up(setting.part())
    assert setting.processes() == []


def test_large_log_is_put_aside(setting: Setting) -> None:
    """A server that runs for months must not fill the disk with what it printed before."""
    log = setting.folder.logs / "mlflow.log"
    with log.open("wb") as file:
        file.truncate(30 * 1024**2)
    setting.launcher().bring_up(setting.part())
    assert log.stat().st_size < 1024
    assert (setting.folder.logs / "mlflow.log.1").exists()


def test_a_part_whose_start_breaks_is_ended(setting: Setting) -> None:
    """A profile that is nowhere broke the look at the store, which ran on with nobody to end it."""

    def broken() -> bool:
        raise LookupError("nobody foresaw this")

    with pytest.raises(LookupError):
        setting.launcher().bring_up(replace(setting.part(), is_ready=broken))
    assert setting.processes() == []
    assert load_state(setting.folder).leaders == {}


def test_each_try_is_more_patient_and_tells_the_part_so(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray has an end of its own to its patience, and began from nothing at each of three tries."""
    monkeypatch.setenv("DDPMCTL_PATIENCE_S", "0.2")
    monkeypatch.setattr("orchestrator.stack.launch._HASTE_S", 0.0)
    started: list[Mapping[str, str]] = []

    def start(command: Sequence[str], environment: Mapping[str, str], **rest: Any) -> Any:
        started.append(environment)
        return start_detached(command, environment, **rest)

    monkeypatch.setattr("orchestrator.stack.launch.start_detached", start)
    part = replace(setting.part(), is_ready=bool, patience_variables=("WAIT_S",))
    with pytest.raises(StackError, match=r"within 0\.6 s \(DDPMCTL_PATIENCE_S gives it more\)"):
        setting.launcher().bring_up(part)
    assert sum("trying again" in line for line in setting.said) == 2
    assert len({environment["WAIT_S"] for environment in started}) > 1


def test_ctrl_c_in_up_ends_what_it_began(setting: Setting) -> None:
    """Exit code 130, no traceback, nothing left running, and the next `up` begins anew."""
    with subprocess.Popen(
        [sys.executable, "-c", UP, "up", str(setting.folder.root)],
        env={**os.environ, "DDPMCTL_HOME": str(setting.folder.root)},
        cwd=Path(__file__).resolve().parents[3],
        stderr=subprocess.PIPE,
        text=True,
    ) as up:
        assert up.stderr is not None
        said = ""
        while "MLflow server is ready" not in said:
            line = up.stderr.readline()
            assert line, said
            said += line
        assert setting.processes()
        up.send_signal(signal.SIGINT)
        said += up.stderr.read()
    assert up.returncode == 130
    assert "Traceback" not in said
    assert "ending the MLflow server" in said
    assert setting.processes() == []
    assert owned_processes(f"{setting.folder.root}:store", None) == []
    assert load_state(setting.folder).leaders == {}
