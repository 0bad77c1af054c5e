"""`completion`, `help`, and the jobs that shells complete."""

import shutil
import subprocess
import sys

import click
import pytest

from orchestrator.cli.arguments import JobArgument
from orchestrator.cli.main import main
from orchestrator.cli.manual import manual_page
from orchestrator.client.submit import submit_job
from orchestrator.errors import BadInputError
from tests.support.fakes import MemoryStore
from tests.support.verbs import Verbs
from tests.support.world import train_job


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_completion(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """The script asks the program, whatever verbs it has by then."""
    command = main.get_command(click.Context(main), "completion")
    assert command is not None
    done = Verbs(monkeypatch, MemoryStore())(command, [shell])
    assert f"_DDPMCTL_COMPLETE={shell}_complete" in done.out.replace(" ", "")


def test_shells_complete_jobs_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the beginning of their id, wherever a verb takes a job."""
    store = MemoryStore()
    Verbs(monkeypatch, store)
    for job_id in ("digits-1", "digits-2", "faces-1"):
        submit_job(store, train_job(), job_id)
    found = JobArgument(["job"]).shell_complete(click.Context(main), "dig")
    assert [(item.value, item.help) for item in found] == [
        ("digits-1", "train QUEUED"),
        ("digits-2", "train QUEUED"),
    ]


def test_every_verb_about_a_job_completes_it() -> None:
    """A verb that was forgotten would be the one that is typed."""
    context, plain = click.Context(main), []
    commands = [(name, main.get_command(context, name)) for name in main.list_commands(context)]
    for name, command in commands:
        assert command is not None
        inner = command.commands.values() if isinstance(command, click.Group) else [command]
        plain += [
            f"{name} {parameter.name}"
            for one in inner
            for parameter in one.params
            if parameter.name in ("job", "jobs", "other") and not isinstance(parameter, JobArgument)
        ]
    assert plain == []


def test_help_of_a_verb_is_its_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """`help samples export` and `samples export --help` say one thing."""
    verbs = Verbs(monkeypatch, MemoryStore())
    for words in (["submit"], ["samples", "export"]):
        one, other = verbs(main, ["help", *words]), verbs(main, [*words, "--help"])
        assert one.out.splitlines()[1:] == other.out.splitlines()[1:]
        assert f"ddpmctl {' '.join(words)}" in one.out.replace("main", "ddpmctl")
    command = main.get_command(click.Context(main), "help")
    assert command is not None
    parent = click.Context(main)
    with pytest.raises(BadInputError, match="no verb samples nothing"):
        command.main(["samples", "nothing"], parent=parent, standalone_mode=False)


def test_the_manual_page_has_every_verb_and_roff_takes_it() -> None:
    """It is written from what `--help` shows, so that the two cannot differ."""
    context = click.Context(main, info_name="ddpmctl")
    page = manual_page(context)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        inner = f"{name} verify" if name in ("samples", "datasets") else name
        assert f".SS {inner}".replace("-", "\\-") in page, command
    assert "\\fB\\-o, \\-\\-output [text|json]\\fR" in page
    assert "\b" not in page
    groff = shutil.which("groff")
    if groff is not None:
        done = subprocess.run(
            [groff, "-man", "-Tascii", "-ww", "-z"], input=page, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_verbs_are_completed_without_loading_any() -> None:
    """Whoever presses Tab waits for it; loading `submit` to name it took most of a second."""
    code = (
        "import click, sys; from orchestrator.cli.main import main; "
        "found = main.shell_complete(click.Context(main), 's'); "
        "print(*(item.value for item in found)); "
        "print([name for name in sys.modules if name.startswith('orchestrator.cli.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    verbs, loaded = done.stdout.splitlines()
    assert {"submit", "status", "samples", "schema", "store"} == set(verbs.split())
    assert "orchestrator.cli.submit" not in loaded
    options = main.shell_complete(click.Context(main), "--v")
    assert [item.value for item in options] == ["--version"]
