"""The weights that a training starts from, where they are those of another one."""

from pathlib import Path

import torch

from ddpm.config import differing_weights
from ddpm.errors import CheckpointFormatError
from ddpm.training.checkpoint import load_model
from ddpm.training.checkpoint_info import STATE_FILE, CheckpointInfo
from ddpm.training.loop import TrainState

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
    ours = state.model.config
    differing = differing_weights(
        (info.unet_config, info.diffusion_config), (ours, state.diffusion_config)
    )
    shapes = (info.image_shape, state.model.image_shape, "images of (C, H, W)")
    return [*differing, *([shapes] if shapes[0] != shapes[1] else [])]
