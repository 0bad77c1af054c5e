"""The verb `init`: three questions, and a job file that runs."""

from collections.abc import Mapping
from pathlib import Path

import click

from orchestrator.cli.output import Output, output_option
from orchestrator.cli.targets import TargetPath
from orchestrator.errors import BadInputError

_SIZES: Mapping[str, Mapping[str, str]] = {
    "small": {
        "channels": "32",
        "multipliers": "[1, 2, 2]",
        "blocks": "1",
        "attention": "[4]",
        "dropout": "0.0",
        "steps": "500",
        "rate": "1e-3",
        "warmup": "100",
        "ema": "0.995",
        "about": "1 million weights: digits and other images of 8 to 16 pixels; minutes on a CPU",
    },
    "medium": {
        "channels": "64",
        "multipliers": "[1, 2, 2]",
        "blocks": "2",
        "attention": "[8]",
        "dropout": "0.1",
        "steps": "20000",
        "rate": "2e-4",
        "warmup": "1000",
        "ema": "0.9995",
        "about": "10 million weights: images of 16 to 32 pixels; hours on a GPU",
    },
    "large": {
        "channels": "128",
        "multipliers": "[1, 2, 2, 2]",
        "blocks": "2",
        "attention": "[16]",
        "dropout": "0.1",
        "steps": "800000",
        "rate": "2e-4",
        "warmup": "5000",
        "ema": "0.9999",
        "about": "36 million weights: CIFAR-10 as Ho et al. 2020; days on a GPU",
    },
}
_MACHINES = {
    "auto": "gpus_per_worker: auto       # a GPU where the cluster has one, else the CPU",
    "cpu": "gpus_per_worker: 0",
    "gpu": "gpus_per_worker: 1          # waits for a GPU",
}
_TEMPLATE = """\
# {about}.
# Every field and its default: `ddpmctl explain-field`. Then: ddpmctl submit {file} --dry-run
kind: train
name: {name}

dataset:
  source: {source}      # `digits`, a path (from this file's folder) or an s3:// URI
  holdout_fraction: 0.05        # never trained on, for the bits per dimension

model:
  channels: {channels}
  channel_multipliers: {multipliers}     # one a level; each but the last halves the images
  num_res_blocks: {blocks}
  attention_resolutions: {attention}    # heights, in pixels, that have self-attention
  dropout: {dropout}

training:
  num_steps: {steps}
  global_batch_size: 128
  learning_rate: {rate}
  lr_warmup_steps: {warmup}
  ema_decay: {ema}
  seed: 0

checkpoints: {{every_steps: {every}, keep: 3}}
tracking: {{sample_every_steps: {every}, sample_steps: 25}}
evaluation: {{num_images: 64, num_timesteps: 50}}

resources:
  {machine}
"""


@click.command("init")
@click.argument("file", type=TargetPath(), default="job.yaml")
@click.option("--data", help="digits, a path, or an s3:// URI.")
@click.option("--size", type=click.Choice([*_SIZES]))
@click.option("--machine", type=click.Choice([*_MACHINES]))
@click.option("--overwrite", is_flag=True, help="Replace the file if there is one.")
@output_option
def init_command(
    file: Path,
    data: str | None,
    size: str | None,
    machine: str | None,
    overwrite: bool,
    output: Output,
) -> None:
    r"""Ask for data, size and machine, and write a commented job file that runs.

    \b
    Examples:
      ddpmctl init
      ddpmctl init faces.yaml --data ./faces --size medium --machine gpu
    """
    if file.exists() and not overwrite:
        raise BadInputError(f"{file} is there already; name another file, or give --overwrite")
    data = data or click.prompt("Data: digits, a path, or an s3:// URI", default="digits", err=True)
    for name, values in _SIZES.items() if size is None else ():
        output.say(f"  {name:<7} {values['about']}")
    size = size or click.prompt("Size", type=click.Choice([*_SIZES]), default="small", err=True)
    machine = machine or click.prompt(
        "Machine", type=click.Choice([*_MACHINES]), default="auto", err=True
    )
    try:
        file.write_text(job_text(file, str(data), str(size), str(machine)), "utf-8")
    except OSError as error:
        raise BadInputError(f"cannot write {file}: {error.strerror}") from error
    output.result(
        {"path": str(file)},
        f"{file} is written\n  look at the plan: ddpmctl submit {file} --dry-run\n"
        f"  submit it: ddpmctl submit {file}",
    )


def job_text(file: Path, data: str, size: str, machine: str) -> str:
    """Return a job file's text for the answers that were given."""
    letters = "".join(c if c.isascii() and c.isalnum() else "-" for c in file.stem.lower())
    name = "-".join(part for part in letters.split("-") if part)[:40].rstrip("-") or "job"
    source = "'" + data.replace("'", "''") + "'"
    every = max(100, int(_SIZES[size]["steps"]) // 20)
    settings = {**_SIZES[size], "machine": _MACHINES[machine]}
    return _TEMPLATE.format(file=file, name=name, source=source, every=every, **settings)
