"""The verbs about the cluster: `orchestrator ensure` and `doctor`."""

import os
import sys
from dataclasses import asdict

import click

from orchestrator.cli.output import Output, output_option
from orchestrator.client.doctor.run import diagnose
from orchestrator.client.ensure import ensure_orchestrator
from orchestrator.client.surroundings import surroundings


@click.group("orchestrator")
def orchestrator_command() -> None:
    """The actor that moves the jobs."""


@orchestrator_command.command("ensure")
@output_option
def ensure_command(output: Output) -> None:
    """Start the orchestrator on the cluster unless it runs; for a cluster's start command."""
    started = ensure_orchestrator(surroundings(output.say).store, output.say)
    output.result({"started": started}, "started" if started else "it runs already")


@click.command("doctor")
@output_option
def doctor_command(output: Output) -> None:
    """Look whether store, Ray and MLflow do what is needed, and say what to mend."""
    surroundings(output.say)
    findings = diagnose(os.environ)
    lines = [
        f"{'ok  ' if one.ok else 'FAIL'} {one.part}: {one.check}: {one.detail}"
        + ("" if one.ok or not one.remedy else f"\n       {one.remedy}")
        for one in findings
    ]
    output.result([asdict(one) for one in findings], "\n".join(lines))
    sys.exit(0 if all(one.ok for one in findings) else 1)
