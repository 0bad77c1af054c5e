"""The command line's entry: knows the verbs by name and loads one when it is called.

So `ddpmctl --help` and a mistyped verb cost no import of anything heavy.
"""

import gc
import importlib
import itertools
import os
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from orchestrator.cli.groups import VerbGroup
from orchestrator.cli.output import complain
from orchestrator.cli.unforeseen import describe, drop_output, forgiving_streams
from orchestrator.errors import OrchestratorError

_VERBS = {
    "up": ("stack", "Start the embedded stack (store, Ray, MLflow), or say that it runs."),
    "down": ("stack", "Stop exactly what `up` started; the data stay."),
    "submit": ("submit", "Check a job file and put the job into the queue."),
    "resubmit": ("again", "Queue a job like one that there is, with other settings."),
    "extend": ("again", "Queue a training that goes on where another one ended."),
    "diff": ("again", "Show in which settings two jobs differ."),
    "init": ("init", "Ask three questions and write a job file that runs."),
    "list": ("listing", "Show the jobs."),
    "status": ("jobs", "Show one job in full."),
    "top": ("top", "Show jobs, nodes and pace, again and again."),
    "ui": ("ui", "Serve a page of jobs, nodes and pictures on this machine."),
    "events": ("events", "Show what happened to a job, or to all."),
    "explain": ("queue", "Say why a job waits, and for how long."),
    "logs": ("logs", "Show what a job's processes wrote."),
    "wait": ("jobs", "Wait until a job has ended; the exit code says how."),
    "cancel": ("changes", "End a job; returns when its processes are really gone."),
    "retry": ("changes", "Queue a failed or cancelled job again."),
    "delete": ("removal", "Remove an ended job and all that it wrote."),
    "gc": ("removal", "Remove what crashes left behind and nothing refers to."),
    "store": ("store", "Copy the store as a whole, for a back-up or a move."),
    "samples": ("samples", "Prove, mend and export a set of samples."),
    "models": ("models", "Take models of diffusers in, and write trained ones for it."),
    "datasets": ("datasets", "Show, prove, export and remove data sets."),
    "compare": ("compare", "Show evaluations side by side."),
    "report": ("report", "Write evaluations side by side as one HTML page."),
    "queue": ("queue", "Limits of queues and submitters."),
    "prices": ("prices", "What an hour of a GPU costs."),
    "nodes": ("nodes", "Show the cluster's nodes, who is on them and who avoids them."),
    "orchestrator": ("cluster", "The actor that moves the jobs."),
    "schema": ("reference", "Print the JSON Schema of job files, for editors."),
    "explain-field": ("reference", "Say what a field of a job file takes and means."),
    "completion": ("completion", "Print the completion of a shell."),
    "help": ("completion", "Show what a verb does, with its options."),
    "doctor": ("cluster", "Look whether store, Ray and MLflow do what is needed."),
}


class _LazyGroup(VerbGroup):
    """Finds verbs in the modules of this room, and turns our errors into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the verbs in the order of a job's life."""
        return list(_VERBS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """Return a verb, loading its module now."""
        if cmd_name not in _VERBS:
            return None
        module = importlib.import_module(f"orchestrator.cli.{_VERBS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        _keep_examples(command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the verbs that begin so, with their one line each, loading none."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=line)
            for name, (_, line) in _VERBS.items()
            if name.startswith(incomplete)
        ]

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the verbs with their one line each, loading none."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, line) for name, (_, line) in _VERBS.items()])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run; whatever happens is one line, or JSON, and an exit code, never a traceback."""
        arguments = sys.argv[1:]
        as_json = _wants_json(arguments)
        # Of a verb's second, a tenth went into looking for garbage among what its imports made,
        # and a twentieth into looking for plugins of pydantic in all that is installed.
        gc.set_threshold(50_000)
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")
        forgiving_streams()
        try:
            sys.exit(super().main(*args, **{**kwargs, "standalone_mode": False}))
        except (click.exceptions.Abort, KeyboardInterrupt):
            sys.exit(130)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            sys.exit(2)
        except click.ClickException as error:
            complain(error.format_message(), 2, as_json)
        except OrchestratorError as error:
            complain(str(error), error.exit_code, as_json)
        except BrokenPipeError:
            drop_output()
            sys.exit(1)
        except Exception as error:  # noqa: BLE001
            # The top of the process: a traceback helps nobody who reads a line, or JSON.
            complain(describe(error, arguments), 1, as_json)


def _keep_examples(command: click.Command) -> None:
    """Have click keep the lines of examples: its mark for that is no letter of a docstring."""
    if command.help:
        command.help = command.help.replace("\\b\n", "\b\n")
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _keep_examples(inner)


def _wants_json(arguments: Sequence[str]) -> bool:
    pairs = itertools.pairwise(arguments)
    is_apart = any(pair in (("-o", "json"), ("--output", "json")) for pair in pairs)
    return is_apart or "-ojson" in arguments or "--output=json" in arguments


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ddpmctl")
@click.pass_context
def main(context: click.Context) -> None:
    """A queue for diffusion training and sampling on a Ray cluster.

    Nothing configured? Then everything runs on an embedded stack in .ddpmctl/. On a cluster of
    your own set DDPMCTL_STORE, RAY_ADDRESS, MLFLOW_TRACKING_URI and AWS_*.
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        context.color = False
