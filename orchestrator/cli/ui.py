"""The verb `ui`: becomes the process that serves the page."""

import os
import sys

import click

from orchestrator.cli.output import Output, output_option

_SERVER = "orchestrator.ui.server"


@click.command("ui")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Where on this machine; 0 is any that is free.",
)
@click.option("--actions", is_flag=True, help="Let the page cancel and retry jobs.")
@output_option
def ui_command(port: int, actions: bool, output: Output) -> None:
    r"""Serve a page of jobs, nodes and pictures on this machine, until Ctrl-C.

    It shows what `list`, `status`, `explain` and `top` know, from the store alone; only who opened
    the printed link sees it, and without --actions it changes nothing.

    \b
    Examples:
      ddpmctl ui
      ddpmctl ui --port 8421 --actions
      ssh -L 8421:127.0.0.1:8421 head ddpmctl ui --port 8421
    """
    options = [*(["--actions"] if actions else []), *(["--json"] if output.as_json else [])]
    # -P: a folder here that happens to be called as a package of ours is none of it.
    command = [sys.executable, "-P", "-m", _SERVER, "--port", str(port), *options]
    os.execv(sys.executable, command)  # noqa: S606 - so that Ctrl-C reaches it, and no shell is in it
