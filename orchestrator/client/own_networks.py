"""Looks at submit whether a network of another package is installed and fits a training's images.

It is built once and sent two images, here, before the job is queued: what is wrong is reported
with the line of the file, and not by the job's smoke test.
"""

import functools
import json
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, create_model

from ddpm.config import OwnConfig
from ddpm.network.own import NetworkShape, find_network, full_settings
from ddpm.network.own_trial import try_network
from orchestrator.specs.document import Document
from orchestrator.specs.fields import with_whole_numbers
from orchestrator.specs.job import Job
from orchestrator.specs.located_errors import validated

MODEL = "model"


def with_own_network(spec: Job, document: Document) -> Job:
    """Return a job in which every setting of another package's network stands, defaults too.

    So the job trains the same network where a later version of the package has other defaults.

    Args:
        spec: What was asked.
        document: Where it was read from.

    Raises:
        BadInputError: A setting is unknown, missing or of a wrong type; one line, with its place.
        ConfigError: The network is not installed here, or refuses its settings.
    """
    asked_for = spec.own_network
    if asked_for is None:
        return spec
    config_class: Any = find_network(asked_for.network).config
    asked = {MODEL: dict(asked_for.settings)}
    settings = Document(document.source, asked, document.lines, document.overrides)
    validated(settings, _closed(config_class))
    whole = with_whole_numbers(asked[MODEL], config_class)
    model = full_settings(replace(asked_for, settings=whole))
    return spec.model_copy(update={MODEL: model})


def check_own_network(spec: Job, shape: tuple[int, int, int], num_classes: int) -> None:
    """Try a job's network with images of (C, H, W), where another package brings it.

    Raises:
        ConfigError: It cannot be trained on them, drawn from or kept.
    """
    if spec.own_network is not None:
        model = spec.own_network.for_classes(num_classes)
        own_parameters(model, shape, shape[0] * spec.outputs_per_channel)


def own_parameters(model: OwnConfig, shape: tuple[int, int, int], out_channels: int) -> int:
    """Return the parameters of another package's network, which is tried. Raises: ConfigError."""
    return _tried(json.dumps(model.to_json(), sort_keys=True), shape, out_channels)


@functools.lru_cache(maxsize=256)  # the runs of a sweep share networks, and plans ask again
def _tried(model: str, shape: tuple[int, int, int], out_channels: int) -> int:
    config = OwnConfig.from_json(json.loads(model))
    return try_network(config, NetworkShape(shape, out_channels, config.known_classes))


def _closed(config_class: type) -> type[BaseModel]:
    """Return a model whose field `model` holds a dataclass, as strictly as ours are held."""
    strict = {"__pydantic_config__": {"extra": "forbid", "strict": True, "allow_inf_nan": False}}
    closed = type(config_class.__name__, (config_class,), strict)
    fields: dict[str, Any] = {MODEL: (closed, ...)}
    return create_model("OwnSettings", **fields)
