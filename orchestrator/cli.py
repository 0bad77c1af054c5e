"""The command line: parse, one call, print. Imports nothing heavy until a verb needs it."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from orchestrator.errors import OrchestratorError

EXIT_FAILED, EXIT_NOT_ENDED, EXIT_CANCELLED = 100, 101, 103
_EXIT_BY_STATE = {"SUCCEEDED": 0, "FAILED": EXIT_FAILED, "CANCELLED": EXIT_CANCELLED}


class Output:
    """Where a verb's words go: a person, or a program that reads JSON."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def say(self, line: str) -> None:
        """Tell a person what happens; never on the standard output of a program."""
        click.echo(line, err=True)

    def result(self, value: Any, text: str | None = None) -> None:
        """Give the result: JSON, or the text for people."""
        if self.as_json:
            click.echo(json.dumps(value, indent=1))
        elif text is not None:
            click.echo(text)


def _output_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "-o",
        "--output",
        "output_format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="json prints only JSON on stdout, errors too.",
    )(command)


class _Group(click.Group):
    """Turns every error of ours into one line and its exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, with no traceback for anything that the reader can act on."""
        wants_json = _wants_json(sys.argv[1:])
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.Abort:
            sys.exit(130)
        except click.ClickException as error:
            _complain(error.format_message(), 2, wants_json)
        except OrchestratorError as error:
            _complain(str(error), error.exit_code, wants_json)
        except ValueError as error:
            if type(error).__name__ != "ConfigError":
                raise
            _complain(str(error), 2, wants_json)
        except KeyboardInterrupt:
            sys.exit(130)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)


def _wants_json(arguments: Sequence[str]) -> bool:
    joined = " ".join(arguments)
    return any(form in joined for form in ("-o json", "-ojson", "--output json", "--output=json"))


def _complain(message: str, exit_code: int, as_json: bool) -> None:
    line = " ".join(message.split())
    if as_json:
        click.echo(json.dumps({"error": line, "exit_code": exit_code}))
    else:
        click.echo(f"error: {line}", err=True)
    sys.exit(exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ddpmctl")
def main() -> None:
    """A queue for diffusion training and sampling on a Ray cluster.

    Nothing configured? Then everything runs on an embedded stack in .ddpmctl/. On a cluster of
    your own set DDPMCTL_STORE, RAY_ADDRESS, MLFLOW_TRACKING_URI and AWS_*.
    """


@main.command()
@_output_option
def up(output_format: str) -> None:
    """Start the embedded stack (store, Ray, MLflow), or say that it runs."""
    from orchestrator.ensure import ensure_orchestrator
    from orchestrator.environment import stack_folder, use_stack
    from orchestrator.stack import Stack
    from orchestrator.storage import open_store

    output = Output(output_format == "json")
    info = Stack(stack_folder()).up(output.say)
    use_stack(info)
    ensure_orchestrator(open_store(os.environ["DDPMCTL_STORE"]), output.say)
    value = {
        "folder": str(info.folder),
        "started": list(info.started),
        "store_url": info.store_url,
        "ray_url": info.ray_url,
        "ray_token_file": str(info.ray_token_file),
        "mlflow_url": info.mlflow_url,
    }
    state = f"started {', '.join(info.started)}" if info.started else "it runs already"
    text = (
        f"embedded stack in {info.folder}: {state}\n"
        f"  store   {info.store_url}\n"
        f"  Ray     {info.ray_url}   (token in {info.ray_token_file})\n"
        f"  MLflow  {info.mlflow_url}"
    )
    output.result(value, text)


@main.command()
@_output_option
def down(output_format: str) -> None:
    """Stop exactly what `up` started; the data stay."""
    from orchestrator.environment import stack_folder
    from orchestrator.stack import Stack

    output = Output(output_format == "json")
    ended = Stack(stack_folder()).down(output.say)
    output.result(
        {"stopped": list(ended)}, f"stopped {', '.join(ended)}" if ended else "nothing was running"
    )


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field.")
@click.option("--id", "job_id", help="Submitting the same id and spec twice is submitting once.")
@click.option("--dry-run", is_flag=True, help="Print the plan and submit nothing.")
@click.option("--wait", "wait_for_it", is_flag=True, help="Wait for the end; see `wait`.")
@_output_option
def submit(
    file: Path,
    overrides: tuple[str, ...],
    job_id: str | None,
    dry_run: bool,
    wait_for_it: bool,
    output_format: str,
) -> None:
    """Check a job file and put the job into the queue."""
    from orchestrator.cli_verbs import submit_verb

    output = Output(output_format == "json")
    status = submit_verb(output, file, overrides, job_id, dry_run=dry_run)
    if wait_for_it and status is not None:
        from orchestrator.cli_verbs import wait_verb

        sys.exit(_exit_code(wait_verb(output, status["job_id"], None)))


def _exit_code(status: dict[str, Any]) -> int:
    return _EXIT_BY_STATE.get(status["state"], EXIT_NOT_ENDED)


@main.command("list")
@click.option("--all", "everything", is_flag=True, help="Also what the index no longer holds.")
@_output_option
def list_command(everything: bool, output_format: str) -> None:
    """Show the jobs: those that live, then the ended ones, the newest first."""
    from orchestrator.cli_verbs import list_verb

    list_verb(Output(output_format == "json"), everything=everything)


@main.command()
@click.argument("job")
@_output_option
def status(job: str, output_format: str) -> None:
    """Show one job in full; JOB is an id, or a name (its newest job)."""
    from orchestrator.cli_verbs import status_verb

    status_verb(Output(output_format == "json"), job)


@main.command()
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@_output_option
def events(job: str, follow: bool, output_format: str) -> None:
    """Show what happened to a job."""
    from orchestrator.cli_verbs import events_verb

    events_verb(Output(output_format == "json"), job, follow=follow)


@main.command()
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--rank", type=int, help="Only this worker.")
@click.option("--attempt", type=int, help="Only this attempt.")
@_output_option
def logs(job: str, follow: bool, rank: int | None, attempt: int | None, output_format: str) -> None:
    """Show what a job's processes wrote, from the store, during and after."""
    from orchestrator.cli_verbs import logs_verb

    logs_verb(Output(output_format == "json"), job, follow=follow, rank=rank, attempt=attempt)


@main.command()
@click.argument("job")
@click.option("--timeout-s", type=click.FloatRange(min=0), help="Give up waiting after this.")
@_output_option
def wait(job: str, timeout_s: float | None, output_format: str) -> None:
    """Wait until a job has ended; the exit code tells how.

    0 succeeded, 100 failed, 101 not ended in time, 103 cancelled. Ctrl-C leaves the job running.
    """
    from orchestrator.cli_verbs import wait_verb

    sys.exit(_exit_code(wait_verb(Output(output_format == "json"), job, timeout_s)))


@main.command()
@click.argument("job")
@click.option(
    "--grace-s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Time to save the work in.",
)
@_output_option
def cancel(job: str, grace_s: float, output_format: str) -> None:
    """End a job; returns when its processes are really gone."""
    from orchestrator.cli_verbs import cancel_verb

    ended = cancel_verb(Output(output_format == "json"), job, grace_s)
    sys.exit(0 if ended["state"] == "CANCELLED" else 1)


@main.command()
@click.argument("job")
@_output_option
def retry(job: str, output_format: str) -> None:
    """Queue a failed or cancelled job again; it goes on from what it has committed."""
    from orchestrator.cli_verbs import retry_verb

    retry_verb(Output(output_format == "json"), job)


@main.command()
@_output_option
def doctor(output_format: str) -> None:
    """Look whether store, Ray and MLflow do what is needed, and say what to mend."""
    from orchestrator.cli_verbs import doctor_verb

    sys.exit(0 if doctor_verb(Output(output_format == "json")) else 1)


@main.group()
def orchestrator() -> None:
    """The actor that moves the jobs."""


@orchestrator.command()
@_output_option
def ensure(output_format: str) -> None:
    """Start the orchestrator on the cluster unless it runs; for a cluster's start command."""
    from orchestrator.cli_verbs import ensure_verb

    ensure_verb(Output(output_format == "json"))
