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
from typing import Any, Self, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddpm.compute import ComputeDecision
from ddpm.config import (
    OWN_NETWORK,
    DiffusionConfig,
    NetworkConfig,
    OwnConfig,
    TrainingConfig,
    UNetConfig,
    network_to_json,
)
from ddpm.errors import CheckpointFormatError
from ddpm.network.generative import GenerativeNetwork
from ddpm.training.adam import MOMENTS
from ddpm.training.families import build_model
from ddpm.training.flat import FlatParameters
from ddpm.training.loop import TrainState

FORMAT_VERSION = 1
STATE_FILE = "state.json"
MODEL_FILE = "model.safetensors"
EMA_FILE = "ema.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
CHECKPOINT_FILES = (MODEL_FILE, EMA_FILE, OPTIMIZER_FILE, STATE_FILE)


def weights_file(name: str) -> str:
    """Return the file of some weights: `ema`, `model`, or a further average as `ema-0.999`."""
    return f"{name}.safetensors"


_Config = TypeVar("_Config", UNetConfig, DiffusionConfig, TrainingConfig)


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What `state.json` says.

    Attributes:
        step: Steps taken.
        unet_config: The sizes of the network, or which one of another package and its settings.
        diffusion_config: The diffusion that it was trained for.
        training_config: The run that it is from.
        image_shape: (C, H, W).
        compute: How that run computes; whoever goes on with it must do the same.
        fixed: What the caller wants later attempts to honour; opaque here.
    """

    step: int
    unet_config: NetworkConfig
    diffusion_config: DiffusionConfig
    training_config: TrainingConfig
    image_shape: tuple[int, int, int]
    compute: ComputeDecision
    fixed: Mapping[str, object]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, where the caller had them fixed; () else."""
        names = self.fixed.get("class_names")
        return tuple(str(name) for name in names) if isinstance(names, list | tuple) else ()

    @classmethod
    def of(cls, state: TrainState, fixed: Mapping[str, object]) -> Self:
        """Describe a state."""
        return cls(
            step=state.step,
            unet_config=state.model.config,
            diffusion_config=state.diffusion_config,
            training_config=state.config,
            image_shape=state.model.image_shape,
            compute=state.compute,
            fixed=fixed,
        )

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        training = self.training_config
        return {
            "format_version": FORMAT_VERSION,
            "step": self.step,
            "unet_config": network_to_json(self.unet_config),
            "diffusion_config": dataclasses.asdict(self.diffusion_config),
            "training_config": dataclasses.asdict(training),
            "image_shape": list(self.image_shape),
            "compute": self.compute.to_json(),
            # The order of the images is a function of these, so they are the whole cursor.
            "data_cursor": {
                "seed": training.seed,
                "next_image": self.step * training.global_batch_size,
            },
            "fixed": dict(self.fixed),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: Something is missing or of the wrong type.
        """
        channels, height, width = values["image_shape"]
        return cls(
            step=int(values["step"]),
            unet_config=_network_from_json(values["unet_config"]),
            diffusion_config=_config_from_json(DiffusionConfig, values["diffusion_config"]),
            training_config=_config_from_json(TrainingConfig, values["training_config"]),
            image_shape=(int(channels), int(height), int(width)),
            compute=ComputeDecision.from_json(values["compute"]),
            fixed=values["fixed"],
        )


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


def read_info(folder: Path) -> CheckpointInfo:
    """Read `state.json` of a checkpoint.

    Raises:
        CheckpointFormatError: It is missing, unreadable or of another format version.
    """
    path = folder / STATE_FILE
    try:
        values = json.loads(path.read_text())
        version = values["format_version"]
        if version != FORMAT_VERSION:
            problem = f"has format version {version}, this program reads {FORMAT_VERSION}"
            raise CheckpointFormatError(str(path), problem)
        return CheckpointInfo.from_json(values)
    except OSError as error:
        raise CheckpointFormatError(str(path), f"can't be read: {error.strerror}") from error
    except KeyError as error:
        raise CheckpointFormatError(str(path), f"lacks the key {error}") from error
    except CheckpointFormatError:
        raise
    except (TypeError, ValueError) as error:
        raise CheckpointFormatError(str(path), f"is not a checkpoint's: {error}") from error


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


def _network_from_json(values: Mapping[str, Any]) -> NetworkConfig:
    if OWN_NETWORK in values:
        return OwnConfig.from_json(values)
    return _config_from_json(UNetConfig, values)


def _config_from_json(config_class: type[_Config], values: Mapping[str, Any]) -> _Config:
    """Read a configuration; fields that this version does not know are ignored."""
    known = {field.name for field in dataclasses.fields(config_class)}
    fields = {name: value for name, value in values.items() if name in known}
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return config_class(**(fields | lists))


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
