"""Folders that diffusers' pipelines load, from checkpoints, and checkpoints from such folders.

A folder holds no pickle, and beside what diffusers reads a README and `ddpmctl.json`, which tells
what diffusers has no field for.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddpm.compute import ComputeDecision
from ddpm.config import ConfigError, DiffusionConfig, TrainingConfig, UNetConfig
from ddpm.errors import ForeignModelError
from ddpm.exchange.names import weights_here, weights_there
from ddpm.exchange.networks import DIFFUSERS_VERSION, UNET, check_groups, unet_here, unet_there
from ddpm.exchange.readme import readme
from ddpm.exchange.schedulers import SCHEDULER, diffusion_here, scheduler_there
from ddpm.network.build import build_network
from ddpm.network.unet import UNet
from ddpm.training.checkpoint import EMA_FILE, MODEL_FILE, load_model
from ddpm.training.checkpoint_info import STATE_FILE, CheckpointInfo

OWN_FILE = "ddpmctl.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
_CONFIG_FILE, _SCHEDULER_FILE, _INDEX_FILE = (
    "config.json",
    "scheduler_config.json",
    "model_index.json",
)
_README_FILE = "README.md"
_FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ForeignModel:
    """A folder of diffusers', read: all but its weights.

    Attributes:
        unet_config: The sizes of the network.
        diffusion_config: What its output stands for.
        image_shape: (C, H, W).
        class_names: Of the labels that it is conditioned on; () where nobody named them.
        step: Training steps that made it, 0 where nobody knows.
    """

    unet_config: UNetConfig
    diffusion_config: DiffusionConfig
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...] = ()
    step: int = 0


def write_folder(
    checkpoint: Path, folder: Path, *, weights: str = "ema", origin: str = ""
) -> list[Path]:
    """Write a checkpoint as a folder that `DDPMPipeline.from_pretrained` loads.

    Args:
        checkpoint: With `state.json` and the file of the weights.
        folder: Where to; made if it is missing.
        weights: The file of the weights, without its ending.
        origin: Of the model, for people.

    Returns:
        Its files.

    Raises:
        CheckpointFormatError: A file of the checkpoint doesn't fit.
        ForeignModelError: Diffusers has nothing that computes the same; nothing was written.
    """
    model, info = load_model(checkpoint, weights=weights)
    scheduler, unet = scheduler_there(info.diffusion_config), unet_there(model)
    names = list(info.class_names)
    own = {
        "format_version": _FORMAT_VERSION,
        "origin": origin,
        "step": info.step,
        "weights": weights,
        "num_classes": info.unet_config.known_classes,
        "class_names": names,
    }
    index = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": DIFFUSERS_VERSION,
        SCHEDULER: ["diffusers", scheduler["_class_name"]],
        UNET: ["diffusers", unet["_class_name"]],
    }
    for part in (UNET, SCHEDULER):
        (folder / part).mkdir(parents=True, exist_ok=True)
    texts = {
        folder / _INDEX_FILE: json.dumps(index, indent=2),
        folder / OWN_FILE: json.dumps(own, indent=2),
        folder / UNET / _CONFIG_FILE: json.dumps(unet, indent=2),
        folder / SCHEDULER / _SCHEDULER_FILE: json.dumps(scheduler, indent=2),
        folder / _README_FILE: readme(info, origin, names),
    }
    for path, text in texts.items():
        path.write_text(text.rstrip() + "\n")
    path = folder / UNET / WEIGHTS_FILE
    save_file(weights_there(model.state_dict()), path, metadata={"format": "pt"})
    return [*texts, path]


def read_folder(folder: Path, *, last_class_is_none: bool = False) -> tuple[ForeignModel, UNet]:
    """Read a folder of diffusers' with a UNet2DModel of the DDPM family.

    Args:
        folder: As `save_pretrained` of a pipeline lays it out, or with all files at its top.
        last_class_is_none: Take the last row of a class embedding for no class, where the folder
            is not one of `write_folder` and does not say.

    Returns:
        What it says, and the network, in float32 on the CPU.

    Raises:
        ForeignModelError: Something has no counterpart here, is missing, or cannot be read.
    """
    own = _own_words(folder)
    unet = _json(folder, UNET, _CONFIG_FILE)
    num_classes = own.get("num_classes")
    if num_classes is None and last_class_is_none and unet.get("num_class_embeds"):
        num_classes = int(unet["num_class_embeds"]) - 1
    try:
        unet_config, shape = unet_here(unet, num_classes)
        diffusion = diffusion_here(_json(folder, SCHEDULER, _SCHEDULER_FILE))
        model = build_network(unet_config, diffusion, shape)
    except ConfigError as error:
        raise ForeignModelError(f"{UNET}/{SCHEDULER}", str(error)) from error
    check_groups(unet, model)
    found = ForeignModel(
        unet_config=unet_config,
        diffusion_config=diffusion,
        image_shape=shape,
        class_names=tuple(map(str, own.get("class_names", ()))),
        step=int(own.get("step", 0)),
    )
    _fill(model, _tensors(folder))
    return found, model


def write_checkpoint(
    found: ForeignModel, model: UNet, folder: Path, *, origin: Mapping[str, object]
) -> list[Path]:
    """Write what `read_folder` gave as a checkpoint that is drawn from, or started from.

    It has no optimizer, so no training goes on from it. Its average is its weights.

    Args:
        found: What the folder says.
        model: The network.
        folder: Where to; made if it is missing.
        origin: Kept with it.

    Returns:
        Its files.
    """
    info = CheckpointInfo(
        step=found.step,
        unet_config=found.unet_config,
        diffusion_config=found.diffusion_config,
        training_config=TrainingConfig(num_steps=max(found.step, 1)),
        image_shape=found.image_shape,
        compute=ComputeDecision(reason="imported"),
        fixed={
            "imported": dict(origin),
            **({"class_names": list(found.class_names)} if found.class_names else {}),
        },
    )
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    for name in (MODEL_FILE, EMA_FILE):
        save_file(tensors, folder / name)
    (folder / STATE_FILE).write_text(json.dumps(info.to_json(), indent=1))
    return [folder / name for name in (MODEL_FILE, EMA_FILE, STATE_FILE)]


def _own_words(folder: Path) -> dict[str, Any]:
    path = folder / OWN_FILE
    if not path.is_file():
        return {}
    words = _parsed(path)
    if words.get("format_version", 0) > _FORMAT_VERSION:
        raise ForeignModelError(OWN_FILE, f"has the unknown format {words['format_version']}")
    return words


def _json(folder: Path, part: str, name: str) -> dict[str, Any]:
    """Read a config below its part's folder, or at the top, where old folders have it."""
    for path in (folder / part / name, folder / name):
        if path.is_file():
            return _parsed(path)
    raise ForeignModelError(str(folder), f"has neither {part}/{name} nor {name}")


def _parsed(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ForeignModelError(str(path), f"can't be read: {error}") from error
    if not isinstance(values, dict):
        raise ForeignModelError(str(path), "holds no JSON object")
    return values


def _tensors(folder: Path) -> dict[str, Tensor]:
    for path in (folder / UNET / WEIGHTS_FILE, folder / WEIGHTS_FILE):
        if path.is_file():
            try:
                tensors: dict[str, Tensor] = load_file(path)
            except (OSError, SafetensorError) as error:
                raise ForeignModelError(str(path), f"can't be read: {error}") from error
            return tensors
    pickles = sorted(p.name for part in (folder / UNET, folder) for p in part.glob("*.bin"))
    message = (
        f"; {pickles[0]} is a pickle, which is not opened: save it as safetensors"
        if pickles
        else ""
    )
    raise ForeignModelError(str(folder), f"has no {UNET}/{WEIGHTS_FILE}{message}")


def _fill(model: UNet, tensors: Mapping[str, Tensor]) -> None:
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = weights_here(tensors, shapes)
    for name, shape in shapes.items():
        if found[name].shape != shape:
            message = f"{name} is {tuple(found[name].shape)} there and {tuple(shape)} here"
            raise ForeignModelError("weights", message)
    model.load_state_dict(found)
    model.eval().requires_grad_(requires_grad=False)
