"""What the command line refuses by itself, and in which form it says so."""

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from orchestrator.cli.groups import behind_the_verb
from orchestrator.cli.main import main
from orchestrator.cli.unforeseen import describe

DDPMCTL = Path(sys.executable).with_name("ddpmctl")


def complaint(folder: Path, *arguments: str) -> str:
    """Return what a call of ddpmctl that must fail as a mistake says."""
    done = subprocess.run([DDPMCTL, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2, done
    assert list(folder.iterdir()) == []  # no stack was started for the sake of a typo
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("cancel", "a", "--grace-s", "inf"), "inf is no number of seconds"),
        (("cancel", "a", "--grace-s", "nan"), "nan is no number of seconds"),
        (("queue", "set", "a", "--gpus", "inf"), "--gpus must be from 0 to"),
        (("queue", "set", "a", "--gpus", "nan"), "--gpus must be from 0 to"),
        (("queue", "set", "a", "--gpus", "-2"), "--gpus must be from 0 to"),
    ],
)
def test_a_number_without_end_is_a_mistake(
    tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    """In the store it would be met by the loop in which all jobs wait."""
    assert told in complaint(tmp_path, *arguments)


def test_errors_are_json_only_where_that_was_asked_for(tmp_path: Path) -> None:
    """A path may begin like the option's value."""
    arguments = ("queue", "set", "a", "--gpus", "inf")
    for form in (("-o", "json"), ("-ojson",), ("--output", "json"), ("--output=json",)):
        assert "--gpus" in json.loads(complaint(tmp_path, *arguments, *form))["error"]
    told = complaint(tmp_path, "samples", "export", "a", "--output", "json-set.npz", "--what")
    assert not told.startswith("{")


class Call(NamedTuple):
    """What a call came to."""

    returncode: int
    stdout: str
    stderr: str


class Caller(Protocol):
    """Calls ddpmctl in this process."""

    def __call__(self, *arguments: str, **variables: str) -> Call:
        """Return what a call with these variables came to."""


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Caller:
    """Calls ddpmctl in an empty folder, with nothing configured but the variables given."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("AWS_", "RAY_", "MLFLOW_", "DDPMCTL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)

    def call(*arguments: str, **variables: str) -> Call:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["ddpmctl", *arguments])
        with pytest.raises(SystemExit) as end:
            main(prog_name="ddpmctl")
        out, err = capsys.readouterr()
        return Call(int(end.value.code or 0), out, err)

    return call


def test_help_looks_like_help_where_no_verb_is_given(run: Caller) -> None:
    """It was one line of 1,100 characters that began with `error:`."""
    for arguments in ((), ("samples",)):
        done = run(*arguments)
        assert done.returncode == 2
        assert done.stdout.startswith("Usage: ddpmctl")
        assert len(done.stdout.splitlines()) > 8
        assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [(("stauts", "a"), "status"), (("samples", "verfy", "a"), "verify"), (("lst",), "list")],
)
def test_a_mistyped_verb_is_guessed(run: Caller, arguments: tuple[str, ...], meant: str) -> None:
    """Who mistypes knows the verb."""
    assert f"did you mean {meant}" in run(*arguments).stderr


@pytest.mark.parametrize(
    ("given", "moved"),
    [
        (["-o", "json", "list"], ["list", "-o", "json"]),
        (["--output=json", "status", "a"], ["status", "a", "--output=json"]),
        (["-ojson", "verify", "--", "a"], ["verify", "-ojson", "--", "a"]),
        (["list", "-o", "json"], ["list", "-o", "json"]),
        (["-o", "json"], ["-o", "json"]),
        (["--version"], ["--version"]),
        (["-o", "json", "--help"], ["-o", "json", "--help"]),
    ],
)
def test_the_form_may_stand_before_the_verb(given: list[str], moved: list[str]) -> None:
    """Other tools take it there, and fingers remember."""
    assert behind_the_verb(given) == moved


READING = (
    ("list",),
    ("status", "a"),
    ("events", "a"),
    ("logs", "a"),
    ("explain", "a"),
    ("doctor",),
    ("gc", "--dry-run"),
    ("queue", "show"),
    ("samples", "verify", "a"),
    ("wait", "a", "--timeout-s", "1"),
    ("cancel", "a"),
    ("retry", "a"),
    ("delete", "a"),
)


@pytest.mark.parametrize("arguments", READING)
def test_verbs_about_what_is_there_start_nothing_where_nothing_is(
    run: Caller, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """A glance in a fresh folder started three servers before it said that there is no job."""
    done = run(*arguments, "-o", "json")
    assert done.returncode in (1, 2)
    assert str(tmp_path / ".ddpmctl") in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"DDPMCTL_HOME": "~nobody-here/x"}, "DDPMCTL_HOME=~nobody-here/x"),
        ({"DDPMCTL_HOME": "x" * 300}, "DDPMCTL_HOME"),
        ({"DDPMCTL_HOME": "a\nb"}, "DDPMCTL_HOME"),
        ({"DDPMCTL_STORE": "http://[::1"}, "DDPMCTL_STORE"),
        ({"DDPMCTL_STORE": "s3://b/a\nb"}, "DDPMCTL_STORE"),
        ({"DDPMCTL_STORE": "s3://bucket/x", "AWS_PROFILE": "no such"}, "AWS_PROFILE"),
        ({"DDPMCTL_STORE": "s3://bucket/x", "AWS_REGION": "eu west"}, "AWS_REGION"),
        ({"DDPMCTL_STORE": "s3://bucket/x", "AWS_ENDPOINT_URL": "http://[::1"}, "AWS_ENDPOINT_URL"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line_and_named(
    run: Caller, variables: dict[str, str], told: str
) -> None:
    """A traceback of somebody else's library names no setting, and with JSON nothing came."""
    done = run("list", "-o", "json", **variables)
    assert done.returncode in (1, 2)
    assert told in json.loads(done.stdout)["error"]
    assert done.stderr == ""


def test_home_is_written_with_a_tilde(run: Caller, tmp_path: Path) -> None:
    """A folder that is called ~ is nobody's home."""
    done = run("list", HOME=str(tmp_path), DDPMCTL_HOME="~/x")
    assert f"was made in {tmp_path / 'x'}:" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", ["~nobody-here/d", "x" * 300, "a\x00b"])
def test_a_source_that_is_no_path_is_one_line(run: Caller, tmp_path: Path, source: str) -> None:
    """What the operating system refuses is no fault of ours, and no traceback either."""
    file = tmp_path / "job.yaml"
    text = f"kind: train\nname: a\ndataset: {{source: {json.dumps(source)}}}\n"
    file.write_text(f"{text}training: {{num_steps: 1}}\n")
    done = run("submit", str(file), "-o", "json")
    assert done.returncode == 2
    assert "data set" in json.loads(done.stdout)["error"]
    assert done.stderr == ""


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    """A terminal stays in a folder that another one removed."""
    gone = tmp_path / "gone"
    gone.mkdir()
    call = f'cd "{gone}" && rmdir "{gone}" && "{DDPMCTL}" list -o json'
    done = subprocess.run(["/bin/sh", "-c", call], capture_output=True, text=True)
    assert "the current folder is gone" in json.loads(done.stdout)["error"]
    assert done.stderr == ""


def test_output_that_has_no_room_is_one_line(tmp_path: Path) -> None:
    """A disk that is full under a redirected list was a traceback."""
    for arguments in (("--help",), ("list", "-o", "json")):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [DDPMCTL, *arguments], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert done.returncode != 0
        assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_reader_that_left_is_no_error(tmp_path: Path) -> None:
    """`ddpmctl list | head` is no reason for words."""
    call = f'"{DDPMCTL}" --help | true'
    done = subprocess.run(["/bin/sh", "-c", call], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""


def test_what_nobody_foresaw_is_one_line_and_a_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A user can send the report; a program reads the line."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    try:
        raise KeyError("two\nlines")
    except KeyError as error:
        line = describe(error, ["list"])
    (report,) = tmp_path.iterdir()
    assert "\n" not in line
    assert line.endswith(f"for a report see {report}")
    assert "Traceback" in report.read_text()
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert "report" not in describe(PermissionError(13, "Permission denied", "/x"), [])
