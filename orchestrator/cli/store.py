"""The verb `store`: a copy of the whole store, for a back-up or a move."""

from dataclasses import asdict

import click

from orchestrator.cli.groups import VerbGroup
from orchestrator.cli.output import Output, output_option
from orchestrator.client.copying import copy_store
from orchestrator.client.describe import bytes_text
from orchestrator.client.surroundings import surroundings
from orchestrator.counts import counted
from orchestrator.store.conditions import prove_conditions
from orchestrator.store.elsewhere import open_elsewhere


@click.group("store", cls=VerbGroup)
def store_command() -> None:
    """The store as a whole."""


@store_command.command("copy")
@click.argument("to", metavar="TO")
@click.option("--to-profile", default="", help="Profile of ~/.aws/config that opens TO.")
@click.option("--to-endpoint", default="", help="The S3 server of TO, if it is another one.")
@output_option
def copy_command(to: str, to_profile: str, to_endpoint: str, output: Output) -> None:
    r"""Copy all jobs, checkpoints, samples and data sets to TO, s3://bucket/prefix.

    Each object is read back and compared. A copy that was broken off goes on with the same
    command, and one that is whole is brought up to date. Refused while jobs have not ended, and
    where TO holds anything else.

    \b
    Examples:
      ddpmctl store copy s3://backup/2026-11-29
      ddpmctl store copy s3://backup/lab --to-profile backup
    """
    source = surroundings(output.say).store
    target = open_elsewhere(to, to_profile, to_endpoint)
    prove_conditions(target)
    copied = copy_store(source, target, output.say)
    new = f"{copied.copied} of them new" + (f", {copied.removed} removed" if copied.removed else "")
    text = f"{counted(copied.objects, 'object')}, {bytes_text(copied.size_bytes)} in {to} ({new})"
    output.result({"to": to, **asdict(copied)}, text)
