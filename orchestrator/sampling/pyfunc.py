"""A trained model as MLflow loads it: `mlflow.pyfunc.load_model("models:/digits/1").predict(...)`.

MLflow finds this module by the name in the checkpoint's MLmodel, and calls `_load_pyfunc`.
"""

import os
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ddpm.compute import Workload, decide_compute
from ddpm.config import SamplingConfig
from ddpm.network.generative import GenerativeNetwork
from ddpm.process.steps import settled
from ddpm.settings.sampling import Method
from ddpm.training.checkpoint import load_model
from ddpm.training.checkpoint_info import CheckpointInfo
from orchestrator.artifacts.samples.encoding import Pixels
from orchestrator.artifacts.samples.labels import make_rule
from orchestrator.attempts.compute import kernel_folder
from orchestrator.errors import BadInputError
from orchestrator.fleet.work import Watch
from orchestrator.jobs.units import Shard
from orchestrator.sampling.drawing import DrawnShard, ShardSampler, UnfinishedShard
from orchestrator.sampling.network import Drawing, build_denoiser, build_diffusion

FIELDS = (
    "num_samples",
    "seed",
    "method",
    "num_steps",
    "labels",
    "guidance_scale",
    "microbatch_size",
)
METHODS = get_args(Method)
_MICROBATCH_SIZE = 16  # whoever asks for a few images need not wait for 128


class TrainedModel:
    """Draws images with a checkpoint, as a sample job with the same settings does.

    Args:
        folder: With the checkpoint's files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def predict(self, model_input: Any) -> Pixels:
        """Draw images.

        Args:
            model_input: One row, as a mapping or a table, with `num_samples`, and perhaps `seed`,
                `method`, `num_steps` (up to the model's number of timesteps, which is also the
                default, or 1000), `guidance_scale`, `microbatch_size` (16) of `SamplingConfig`, and
                `labels`: balanced, none, or names of classes with commas between them.

        Returns:
            (num_samples, H, W, C) uint8. Image k is that of every sample job with these settings.

        Raises:
            BadInputError: A field is unknown or wrong, or there is not one row.
            ConfigError: A field holds what it must not, or does not fit the model.
        """
        asked = _row(model_input)
        num_samples = asked.pop("num_samples", None)
        if type(num_samples) is not int or num_samples < 1:
            raise BadInputError(f"num_samples must be a whole number above 0, not {num_samples!r}")
        model, info = load_model(self._folder)
        num_steps = min(SamplingConfig.num_steps, info.diffusion_config.num_timesteps)
        defaults = {"num_steps": num_steps, "microbatch_size": _MICROBATCH_SIZE}
        return _drawn(model, info, SamplingConfig(**{**defaults, **asked}), num_samples)


def _drawn(
    model: GenerativeNetwork, info: CheckpointInfo, config: SamplingConfig, num_samples: int
) -> Pixels:
    work = Workload(
        network=info.unet_config,
        diffusion=info.diffusion_config,
        images_per_pass=config.images_per_pass,
    )
    compute = decide_compute(
        work,
        precision=config.precision,
        compile_request=config.compile,
        num_threads=len(os.sched_getaffinity(0)),
        worth_compiling=False,
        kernel_folder=kernel_folder(),
    )
    config = settled(config, info.diffusion_config)
    names = info.class_names
    drawing = Drawing(
        network=build_denoiser(model, compute),
        diffusion=build_diffusion(info, compute.device),
        config=config,
        rule=make_rule(config, info.unet_config.known_classes, names),
        null_label=model.null_label,
    )
    sampler = ShardSampler(
        drawing.denoiser, drawing.diffusion, config, info.image_shape, compute.device
    )
    drawn = sampler.draw(UnfinishedShard(shard=Shard(0, 0, num_samples)), Watch())
    assert isinstance(drawn, DrawnShard)  # noqa: S101 - nobody told it to stop
    return drawn.pixels


def _row(model_input: Any) -> dict[str, Any]:
    """Return the one row of what MLflow hands over, with plain values and without empty ones."""
    if hasattr(model_input, "to_dict"):
        rows = model_input.to_dict(orient="records")
    else:
        rows = [dict(model_input)]
    if len(rows) != 1:
        raise BadInputError(f"one row asks for images, not {len(rows)}")
    row = {name: _plain(value) for name, value in rows[0].items()}
    row = {name: value for name, value in row.items() if value is not None}
    unknown = sorted(row.keys() - set(FIELDS))
    if unknown:
        raise BadInputError(f"{unknown[0]} is unknown; known are {', '.join(FIELDS)}")
    method = row.get("method", "ddpm")
    if method not in METHODS:
        raise BadInputError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    labels = row.get("labels")
    if isinstance(labels, str) and labels not in ("balanced", "none"):
        row["labels"] = tuple(name.strip() for name in labels.split(","))
    return row


def _plain(value: Any) -> Any:
    """Return a value of numpy's or pandas' as Python's own; what is missing as None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value


def _load_pyfunc(data_path: str) -> TrainedModel:
    """Return the model of a folder. MLflow calls it by this name."""
    return TrainedModel(Path(data_path))
