"""The verbs about models in other projects' forms: `models export|import|list|delete`."""

from dataclasses import asdict
from pathlib import Path

import click

from orchestrator.artifacts.checkpoints.foreign import (
    ImportedModel,
    drop_imported,
    export_folder,
    import_folder,
    imported_models,
)
from orchestrator.cli.arguments import JobArgument
from orchestrator.cli.groups import VerbGroup
from orchestrator.cli.output import Output, output_option, short_output_option
from orchestrator.cli.targets import TargetPath
from orchestrator.client.describe import bytes_text
from orchestrator.client.surroundings import surroundings
from orchestrator.jobs.lookup import find_job_id
from orchestrator.specs.sections import ModelRef


@click.group("models", cls=VerbGroup)
def models_command() -> None:
    """Take models of diffusers in, and write trained ones for it."""


@models_command.command("export")
@click.argument("job", cls=JobArgument)
@click.option("--format", "form", type=click.Choice(["diffusers"]), default="diffusers")
@click.option("--output", "--to", "path", type=TargetPath(is_folder=True), required=True)
@click.option(
    "--weights", default="ema", show_default=True, help="The moving average, or the raw weights."
)
@click.option("--step", type=click.IntRange(1), help="Of the checkpoint; the newest by default.")
@short_output_option
def export_command(
    job: str, form: str, path: Path, weights: str, step: int | None, output: Output
) -> None:
    """Write a training's network as a folder that DDPMPipeline.from_pretrained loads."""
    store = surroundings(output.say).store
    ref = ModelRef.model_validate(
        {"job": find_job_id(store, job), "weights": weights, "step": step}
    )
    model = export_folder(store, ref, path)
    value = {"path": str(path.absolute()), "format": form, "job": model.job_id, "step": model.step}
    output.result(value, f"step {model.step} of {model.job_id}: {path.absolute()}")


@models_command.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", help="What it is called, after `imported-`; its hash by default.")
@click.option(
    "--last-class-is-none",
    is_flag=True,
    help="The last row of its class embedding stands for no class, as guidance needs it.",
)
@output_option
def import_command(
    folder: Path, name: str | None, last_class_is_none: bool, output: Output
) -> None:
    """Take a diffusers folder (a UNet2DModel with its scheduler) into the store."""
    store = surroundings(output.say, writes=True).store
    model = import_folder(store, folder, name=name, last_class_is_none=last_class_is_none)
    output.result(
        asdict(model), f"{_line(model)}\n  in job files: {{checkpoint: {model.checkpoint}}}"
    )


@models_command.command("list")
@output_option
def list_command(output: Output) -> None:
    """Show the models that were taken in."""
    models = list(imported_models(surroundings(output.say).store))
    text = "\n".join(f"{_line(model)}  {model.checkpoint}" for model in models)
    output.result([asdict(model) for model in models], text or "no imported models")


@models_command.command("delete")
@click.argument("name")
@output_option
def delete_command(name: str, output: Output) -> None:
    """Remove a model that was taken in and that no job needs."""
    drop_imported(surroundings(output.say, writes=True).store, name)
    output.result({"deleted": name}, f"{name} is removed")


def _line(model: ImportedModel) -> str:
    return f"{model.name}  step {model.step}  {bytes_text(model.size_bytes)}"
