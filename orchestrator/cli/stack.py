"""The verbs `up` and `down`."""

import os

import click

from orchestrator.cli.output import Output, output_option
from orchestrator.client.ensure import ensure_orchestrator
from orchestrator.client.mlflow_page import runs_page
from orchestrator.client.surroundings import stack_folder, use_stack
from orchestrator.stack.embedded import Stack, StackInfo
from orchestrator.store.conditions import prove_conditions
from orchestrator.store.s3_store import open_store


@click.command("up")
@output_option
def up_command(output: Output) -> None:
    """Start the embedded stack (store, Ray, MLflow), or say that it runs."""
    info = Stack(stack_folder()).up(output.say)
    use_stack(info, output.say)
    store = open_store(os.environ["DDPMCTL_STORE"])
    prove_conditions(store)
    ensure_orchestrator(store, output.say, restarted="ray" in info.started)
    value = {
        "folder": str(info.folder),
        "started": list(info.started),
        "store_url": info.store_url,
        "ray_url": info.ray_url,
        "ray_token_file": str(info.ray_token_file),
        "mlflow_url": runs_page(info.mlflow_url),
    }
    output.result(value, describe_stack(info))
    output.hint("  a first job: ddpmctl init, or ddpmctl submit jobs/train.yaml")


def describe_stack(info: StackInfo) -> str:
    """Return where the parts are, for a person."""
    state = f"started {', '.join(info.started)}" if info.started else "it runs"
    return (
        f"embedded stack in {info.folder}: {state}\n"
        f"  store   {info.store_url}\n"
        f"  Ray     {info.ray_url}   (its token: {info.ray_token_file})\n"
        f"  MLflow  {runs_page(info.mlflow_url)}"
    )


@click.command("down")
@output_option
def down_command(output: Output) -> None:
    """Stop exactly what `up` started; the data stay."""
    folder = stack_folder()
    ended = Stack(folder).down(output.say)
    text = f"stopped {', '.join(ended)}" if ended else f"nothing was running in {folder}"
    output.result({"stopped": list(ended), "folder": str(folder)}, text)
