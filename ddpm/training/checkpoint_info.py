"""What a checkpoint says of itself: `state.json`."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

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
from ddpm.training.loop import TrainState

FORMAT_VERSION = 1
STATE_FILE = "state.json"
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
