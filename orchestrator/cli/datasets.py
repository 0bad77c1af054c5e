"""The verbs about data sets: `datasets list|show|verify|export|delete`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from orchestrator.artifacts.datasets.chunks import read_chunk
from orchestrator.artifacts.datasets.export import export_dataset
from orchestrator.artifacts.datasets.labels import describe_classes
from orchestrator.artifacts.datasets.manifest import MANIFEST, Manifest, read_manifest
from orchestrator.artifacts.datasets.proof import verify_dataset
from orchestrator.artifacts.datasets.refs import DatasetRef, find_stored
from orchestrator.artifacts.images import image_grid
from orchestrator.cli.output import Output, output_option, short_output_option
from orchestrator.cli.targets import TargetPath
from orchestrator.client.describe import bytes_text
from orchestrator.client.stored_datasets import delete_dataset, list_datasets
from orchestrator.client.surroundings import surroundings
from orchestrator.counts import counted
from orchestrator.errors import BadInputError
from orchestrator.store.objects import ObjectStore

_SHOWN = 64
_NAME = 12


@click.group("datasets")
def datasets_command() -> None:
    """Show, prove, export and remove the data sets of the store."""


@datasets_command.command("list")
@output_option
def list_command(output: Output) -> None:
    """Show the data sets of the store."""
    refs = list_datasets(surroundings(output.say).store)
    output.result([asdict(ref) for ref in refs], "\n".join(map(_line, refs)) or "no data sets")


@datasets_command.command("show")
@click.argument("name")
@click.option("--sheet", type=TargetPath(), help="Write the first images as a PNG.")
@output_option
def show_command(name: str, sheet: Path | None, output: Output) -> None:
    """Print what is known of a data set; NAME is its hash, or the beginning of it."""
    store = surroundings(output.say).store
    ref = find_stored(name, store)
    manifest = read_manifest(store, ref.images)
    if sheet is not None:
        _write_sheet(store, ref, sheet)
        output.say(f"the first images: {sheet.absolute()}")
    value = {**json.loads(MANIFEST.encode(manifest)), **asdict(ref)}
    output.result(value, "\n".join(_described(ref, manifest)))


@datasets_command.command("verify")
@click.argument("name")
@output_option
def verify_command(name: str, output: Output) -> None:
    """Reread a data set and prove that every image and label is what its name says."""
    store = surroundings(output.say).store
    report = verify_dataset(store, find_stored(name, store))
    whole = f"{report.sha256[:_NAME]}: whole, {counted(report.num_images, 'image')}"
    output.result(asdict(report), whole if report.is_whole else "\n".join(report.problems))
    sys.exit(0 if report.is_whole else 1)


@datasets_command.command("export")
@click.argument("name")
@click.option(
    "--format",
    "form",
    type=click.Choice(["npz", "npy", "png", "tiff"]),
    default="npz",
    show_default=True,
    help="PNG holds 8 bits in up to 4 channels; the others any set.",
)
@click.option("--output", "--to", "path", type=TargetPath(None), required=True)
@short_output_option
def export_command(name: str, form: Any, path: Path, output: Output) -> None:
    """Write a data set to local files, with the values that it was given with."""
    store = surroundings(output.say).store
    ref = find_stored(name, store)
    export_dataset(store, ref, form, path)
    value = {"path": str(path), "format": form, "num_images": ref.num_images}
    output.result(value, f"{counted(ref.num_images, 'image')} in {path}")


@datasets_command.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
@output_option
def delete_command(name: str, yes: bool, output: Output) -> None:
    """Remove a data set that no job and no labels refer to."""
    store = surroundings(output.say).store
    ref = find_stored(name, store)
    if not yes and sys.stdin.isatty() and not click.confirm(f"delete {_line(ref)}?", err=True):
        raise BadInputError(f"{ref.sha256[:_NAME]} was not deleted")
    removed = delete_dataset(store, ref)
    message = f"{counted(removed.objects, 'object')}, {bytes_text(removed.size_bytes)}"
    output.result(
        {"sha256": ref.sha256, **asdict(removed)}, f"{ref.sha256[:_NAME]} deleted: {message}"
    )


def _line(ref: DatasetRef) -> str:
    size = f"{ref.height} x {ref.width} x {ref.channels} {ref.dtype}"
    images = counted(ref.num_images, "image", ",")
    classes = f", {counted(ref.num_classes, 'class')}" if ref.num_classes else ""
    return f"{ref.sha256[:_NAME]}  {images}, {size}{classes}, from {ref.source}"


def _described(ref: DatasetRef, manifest: Manifest) -> list[str]:
    lines = [
        _line(ref),
        f"  name         {ref.sha256}",
        f"  bytes        {bytes_text(manifest.size_bytes)}",
        f"  value range  {ref.value_range[0]:g} to {ref.value_range[1]:g}",
    ]
    if statistics := manifest.statistics:
        rows = zip(statistics.mean, statistics.deviation, strict=True)
        message = ", ".join(f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in rows)
        lines.append(f"  channels     {message}")
    if ref.class_names:
        lines.append(f"  labels       {describe_classes(ref)}")
    if manifest.num_damaged:
        lines.append(f"  damaged      {manifest.num_damaged} were passed over")
    return lines


def _write_sheet(store: ObjectStore, ref: DatasetRef, path: Path) -> None:
    """Write the first images side by side, with the value range spread over 8 bits."""
    images = read_chunk(store, read_manifest(store, ref.images).chunks[0])[:_SHOWN]
    if (ref.dtype, ref.value_range) != ("uint8", (0.0, 255.0)):
        low, high = ref.value_range
        shares = (images.astype(np.float64) - low) / (high - low)
        images = np.round(255 * shares.clip(0, 1)).astype(np.uint8)
    try:
        path.write_bytes(image_grid(images))
    except OSError as error:
        raise BadInputError(f"cannot write {path}: {error.strerror}") from error
