"""`model:` of a training: the sizes of the U-Net, or a network of another package by its name.

A stored job is read wherever it is looked at, so the other package need not be installed here: what
its settings may be is looked at when a job is submitted, and where it is trained.
"""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler, GetPydanticSchema
from pydantic_core import CoreSchema, core_schema

from ddpm.config import OWN_NETWORK, NetworkConfig, OwnConfig, TrainingConfig, UNetConfig
from orchestrator.specs.located_errors import FieldsError

_MODEL = "model"
_UNET, _OWN = "<unet>", "<own>"  # in angle brackets, as no key of a job file is
_DESCRIPTION = "A network of an installed package, with its settings beside its name."


def _kind(value: Any) -> str:
    """Return which of the two a value is, or is meant to be."""
    is_own = isinstance(value, OwnConfig) or (isinstance(value, dict) and OWN_NETWORK in value)
    return _OWN if is_own else _UNET


def _read(value: Any, read_keys: Callable[[Any], Any]) -> OwnConfig:
    del read_keys
    return value if isinstance(value, OwnConfig) else OwnConfig.from_json(value)


def _schema(source: Any, handler: Callable[[Any], CoreSchema]) -> CoreSchema:
    del source
    writing = core_schema.plain_serializer_function_ser_schema(OwnConfig.to_json)
    own = core_schema.no_info_wrap_validator_function(
        _read, core_schema.dict_schema(), serialization=writing
    )
    choices = {_UNET: handler(UNetConfig), _OWN: own}
    return core_schema.tagged_union_schema(choices, discriminator=_kind)


def _json_schema(schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
    named = {"type": "string", "description": _DESCRIPTION}
    classes = {
        "description": "Classes that the network is conditioned on; auto: those of the data set.",
        "anyOf": [{"type": "integer", "minimum": 0}, {"const": "auto"}],
    }
    own = {"properties": {OWN_NETWORK: named, "num_classes": classes}}
    unet, _ = handler(schema)["oneOf"]
    return {
        "if": {"type": "object", "required": [OWN_NETWORK]},
        "then": {"type": "object", **own},
        "else": unet,
    }


ModelConfig = Annotated[UNetConfig | OwnConfig, GetPydanticSchema(_schema, _json_schema)]


def check_network(model: NetworkConfig, training: TrainingConfig) -> None:
    """Refuse what a training asks of a network that does not know it.

    Raises:
        FieldsError: What does not go together.
    """
    recomputed, augment = ("training", "activation_checkpointing"), ("training", "augment")
    if isinstance(model, OwnConfig) and training.activation_checkpointing:
        message = (
            f"{'.'.join(recomputed)} must be left out with model.network, whose layers nobody "
        )
        raise FieldsError(((_MODEL, OWN_NETWORK), recomputed), f"{message}here knows")
    if training.augment and not (isinstance(model, UNetConfig) and model.augmentation):
        raise FieldsError(
            ((_MODEL, "augmentation"), augment),
            "training.augment needs model.augmentation: true, or the network would draw what was "
            "done to its images (only a U-Net can be conditioned)",
        )
