"""The verbs about the cluster: `orchestrator ensure` and `doctor`."""

import sys
from dataclasses import asdict

import click

from orchestrator.cli.groups import VerbGroup
from orchestrator.cli.output import Output, output_option
from orchestrator.client.doctor.background import diagnose_background
from orchestrator.client.doctor.findings import Finding
from orchestrator.client.doctor.run import diagnose
from orchestrator.client.ensure import ensure_running
from orchestrator.client.surroundings import Start, surroundings
from orchestrator.errors import OrchestratorError


@click.group("orchestrator", cls=VerbGroup)
def orchestrator_command() -> None:
    """The actor that moves the jobs."""


@orchestrator_command.command("ensure")
@output_option
def ensure_command(output: Output) -> None:
    """Start the orchestrator on the cluster unless it runs; for a cluster's start command."""
    started = ensure_running(surroundings(output.say, Start.FRESH), output.say)
    output.result({"started": started}, "started" if started else "it runs already")


@click.command("doctor")
@output_option
def doctor_command(output: Output) -> None:
    """Look whether store, Ray and MLflow do what is needed, and say what to mend."""
    findings = _diagnose(output)
    lines = [
        f"{'ok  ' if one.ok else 'FAIL'} {one.part}: {one.check}: {one.detail}"
        + ("" if one.ok or not one.remedy else f"\n       {one.remedy}")
        for one in findings
    ]
    output.result([asdict(one) for one in findings], "\n".join(lines))
    sys.exit(0 if all(one.ok for one in findings) else 1)


def _diagnose(output: Output) -> list[Finding]:
    try:
        store = surroundings(output.say).store
    except OrchestratorError as error:
        return [Finding("stack", "store", False, str(error), "then look again")]
    return [*diagnose(), *diagnose_background(store)]
