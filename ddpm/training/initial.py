"""The weights that a training starts from, where they are those of another one."""

import dataclasses
from pathlib import Path

import torch

from ddpm.config import (
    OWN_NETWORK,
    NetworkConfig,
    UNetConfig,
    network_name,
    network_to_json,
)
from ddpm.errors import CheckpointFormatError
from ddpm.training.checkpoint import STATE_FILE, CheckpointInfo, load_model
from ddpm.training.loop import TrainState

# What a training may have otherwise than the one it starts from.
_FREE = frozenset({"dropout", "num_classes", "augmentation"})
_LABELS = "label_embedding."


def start_from(state: TrainState, folder: Path, *, weights: str = "ema") -> CheckpointInfo:
    """Give a state that took no step the weights of a checkpoint, and its averages the same.

    The embedding of the labels stays as it was drawn where the checkpoint has none, or one of
    another number of classes.

    Args:
        state: Of a network of the same sizes, which predicts the same.
        folder: With `state.json` and the file of the weights.
        weights: That file's name, without its ending.

    Returns:
        What the checkpoint says of itself.

    Raises:
        CheckpointFormatError: The checkpoint does not fit; then nothing of `state` was changed.
    """
    model, info = load_model(folder, weights=weights)
    for found, wanted, name in _unequal(info, state):
        problem = f"has {name} {found}, and this training {wanted}: they must be equal"
        raise CheckpointFormatError(str(folder / STATE_FILE), problem)
    theirs = model.state_dict()
    with torch.no_grad():
        for name, view in state.parameters.views(state.parameters.values):
            own = theirs.get(name)
            if own is not None and (own.shape == view.shape or not name.startswith(_LABELS)):
                view.copy_(own)
    for average in (state.ema, *state.further_emas.values()):
        average.copy_(state.parameters.values)
    return info


def _unequal(info: CheckpointInfo, state: TrainState) -> list[tuple[object, object, str]]:
    """Return what has to be equal and is not: theirs, ours, and its name."""
    pairs = _of_networks(info.unet_config, state.model.config)
    pairs.append((info.image_shape, state.model.image_shape, "images of (C, H, W)"))
    for name in ("prediction", "outputs_per_channel"):
        found, wanted = getattr(info.diffusion_config, name), getattr(state.diffusion_config, name)
        pairs.append((found, wanted, f"diffusion.{name}"))
    return [pair for pair in pairs if pair[0] != pair[1]]


def _of_networks(theirs: NetworkConfig, ours: NetworkConfig) -> list[tuple[object, object, str]]:
    """Return the pairs of two networks' fields that have to be equal, with their names."""
    if isinstance(theirs, UNetConfig) and isinstance(ours, UNetConfig):
        names = [field.name for field in dataclasses.fields(UNetConfig) if field.name not in _FREE]
        return [(getattr(theirs, n), getattr(ours, n), f"model.{n}") for n in names]
    named = (network_name(theirs) or None, network_name(ours) or None, f"model.{OWN_NETWORK}")
    if named[0] != named[1]:
        return [named]
    found, wanted = network_to_json(theirs), network_to_json(ours)
    names = sorted(found.keys() | wanted.keys())
    return [(found.get(name), wanted.get(name), f"model.{name}") for name in names]
