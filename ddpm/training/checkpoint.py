"""A TrainState to and from a folder of named files.

`model.safetensors`, `ema.safetensors` and `optimizer.safetensors` hold tensors by the name of the
parameter, in row-major order; the memory format is that of the state which loads them.
Each further average has a file of its own, as `ema-0.999.safetensors`.
`state.json` holds the rest. Nothing in them can run code.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddpm.errors import CheckpointFormatError
from ddpm.network.generative import GenerativeNetwork
from ddpm.training.adam import MOMENTS
from ddpm.training.checkpoint_info import STATE_FILE, CheckpointInfo, read_info
from ddpm.training.families import build_model
from ddpm.training.flat import FlatParameters
from ddpm.training.loop import TrainState

MODEL_FILE = "model.safetensors"
EMA_FILE = "ema.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
CHECKPOINT_FILES = (MODEL_FILE, EMA_FILE, OPTIMIZER_FILE, STATE_FILE)


def weights_file(name: str) -> str:
    """Return the file of some weights: `ema`, `model`, or a further average as `ema-0.999`."""
    return f"{name}.safetensors"


@dataclass(frozen=True)
class StateSnapshot:
    """A TrainState as it was at one step, in memory of its own.

    Training can go on at once, while a thread writes the snapshot to files.
    """

    info: CheckpointInfo
    layout: FlatParameters
    model: Tensor
    ema: Tensor
    moments: Mapping[str, Tensor]
    further_emas: Mapping[str, Tensor]

    @classmethod
    def take(cls, state: TrainState, fixed: Mapping[str, object] | None = None) -> Self:
        """Copy a state to CPU memory: four long vectors.

        Args:
            state: As `train_steps` leaves it when it ends.
            fixed: JSON values that later attempts must honour; they come back in CheckpointInfo.
        """
        moments = state.optimizer.moments
        return cls(
            info=CheckpointInfo.of(state, fixed or {}),
            layout=state.parameters,
            model=_cpu_copy(state.parameters.values),
            ema=_cpu_copy(state.ema),
            moments={name: _cpu_copy(moments[name]) for name in MOMENTS},
            further_emas={name: _cpu_copy(ema) for name, ema in state.further_emas.items()},
        )

    def put_back(self, state: TrainState) -> None:
        """Make the state that this was taken of what it was then, to the bit."""
        with torch.no_grad():
            for vector, saved in self._pairs(state):
                vector.copy_(saved)
        state.optimizer.num_steps.fill_(self.info.step)
        state.step = self.info.step

    def matches(self, state: TrainState) -> bool:
        """Tell whether a state of the same sizes is this one, to the bit."""
        is_same = all(torch.equal(vector.cpu(), saved) for vector, saved in self._pairs(state))
        return is_same and state.step == self.info.step

    def _pairs(self, state: TrainState) -> list[tuple[Tensor, Tensor]]:
        moments = state.optimizer.moments
        return [
            (state.parameters.values, self.model),
            (state.ema, self.ema),
            *((moments[name], self.moments[name]) for name in MOMENTS),
            *((ema, self.further_emas[name]) for name, ema in state.further_emas.items()),
        ]

    def write(self, folder: Path) -> list[Path]:
        """Write the files of a checkpoint into a folder, which is made if it is missing.

        Returns:
            Their paths; `state.json`, the last, is written when the others are whole.
        """
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.layout.contiguous_tensors(self.model), folder / MODEL_FILE)
        save_file(self.layout.contiguous_tensors(self.ema), folder / EMA_FILE)
        further = [weights_file(name) for name in self.further_emas]
        for file, ema in zip(further, self.further_emas.values(), strict=True):
            save_file(self.layout.contiguous_tensors(ema), folder / file)
        moments = {
            f"{moment}.{name}": tensor
            for moment, vector in self.moments.items()
            for name, tensor in self.layout.contiguous_tensors(vector).items()
        }
        save_file(moments, folder / OPTIMIZER_FILE)
        (folder / STATE_FILE).write_text(json.dumps(self.info.to_json(), indent=1))
        return [folder / name for name in (*further, *CHECKPOINT_FILES)]


def save_state(
    state: TrainState, folder: Path, fixed: Mapping[str, object] | None = None
) -> list[Path]:
    """Write a state to the files of a checkpoint and return their paths."""
    return StateSnapshot.take(state, fixed).write(folder)


def load_state(state: TrainState, folder: Path) -> CheckpointInfo:
    """Fill a state of the same configuration from a checkpoint; only `num_steps` may differ.

    And that only where the learning rate of a step does not depend on it.

    Returns:
        What the checkpoint says of itself.

    Raises:
        CheckpointFormatError: A file, a tensor, a shape or the configuration doesn't fit; then
            nothing of `state` was changed.
    """
    info = read_info(folder)
    _check_same_run(info, CheckpointInfo.of(state, info.fixed), folder)
    shapes = {name: view.shape for name, view in state.parameters.views(state.ema)}
    model = _read_tensors(folder / MODEL_FILE, shapes)
    ema = _read_tensors(folder / EMA_FILE, shapes)
    further = {n: _read_tensors(folder / weights_file(n), shapes) for n in state.further_emas}
    moment_shapes = {f"{m}.{name}": shape for m in MOMENTS for name, shape in shapes.items()}
    moments = _read_tensors(folder / OPTIMIZER_FILE, moment_shapes)
    state.parameters.fill(state.parameters.values, model)
    state.parameters.fill(state.ema, ema)
    for name, tensors in further.items():
        state.parameters.fill(state.further_emas[name], tensors)
    for moment in MOMENTS:
        tensors = {name: moments[f"{moment}.{name}"] for name in shapes}
        state.parameters.fill(state.optimizer.moments[moment], tensors)
    state.optimizer.num_steps.fill_(info.step)
    state.step = info.step
    return info


def load_model(folder: Path, *, weights: str = "ema") -> tuple[GenerativeNetwork, CheckpointInfo]:
    """Read the network of a checkpoint, ready to predict: float32, on the CPU, in eval mode.

    Args:
        folder: With `state.json` and the one file of weights.
        weights: That file's name, without its ending.

    Raises:
        CheckpointFormatError: A file, a tensor or a shape doesn't fit.
    """
    info = read_info(folder)
    model = build_model(info.unet_config, info.diffusion_config, info.image_shape)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    tensors = _read_tensors(folder / weights_file(weights), shapes)
    # Buffers follow from the configuration; shared weights are saved under one of their names.
    model.load_state_dict(tensors, strict=False)
    return model.eval().requires_grad_(requires_grad=False), info


def _cpu_copy(vector: Tensor) -> Tensor:
    return vector.detach().to("cpu", copy=True)


def _check_same_run(saved: CheckpointInfo, wanted: CheckpointInfo, folder: Path) -> None:
    training = saved.training_config
    if not training.lr_depends_on_length:
        training = dataclasses.replace(training, num_steps=wanted.training_config.num_steps)
    saved = dataclasses.replace(saved, training_config=training)
    for part in ("unet_config", "diffusion_config", "training_config", "image_shape", "compute"):
        found, expected = getattr(saved, part), getattr(wanted, part)
        if found != expected:
            problem = f"has another {part}: {found}, not {expected}"
            raise CheckpointFormatError(str(folder / STATE_FILE), problem)


def _read_tensors(path: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Read float32 tensors with just these names and shapes."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointFormatError(str(path), f"can't be read: {error}") from error
    for name in sorted(shapes.keys() ^ tensors.keys()):
        problem = f"lacks the tensor {name}" if name in shapes else f"has an unknown tensor {name}"
        raise CheckpointFormatError(str(path), problem)
    for name, shape in shapes.items():
        found = tensors[name]
        if found.shape != shape or found.dtype != torch.float32:
            problem = f"{name} is {found.dtype} {tuple(found.shape)}, not float32 {tuple(shape)}"
            raise CheckpointFormatError(str(path), problem)
    return tensors
