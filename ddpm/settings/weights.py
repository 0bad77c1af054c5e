"""Whether the weights of one network are those of another: what has to be equal for that."""

import dataclasses

from ddpm.settings.diffusion import DiffusionConfig
from ddpm.settings.network import UNetConfig
from ddpm.settings.own import OWN_NETWORK, NetworkConfig, network_name, network_to_json

# What a training may have otherwise than the one that it starts from.
_FREE = frozenset({"dropout", "num_classes", "augmentation"})
Difference = tuple[object, object, str]
"""Theirs, ours, and the field's name."""


def differing_weights(
    theirs: tuple[NetworkConfig, DiffusionConfig], ours: tuple[NetworkConfig, DiffusionConfig]
) -> list[Difference]:
    """Return what has to be equal and is not, where weights go from one training to another."""
    pairs = _of_networks(theirs[0], ours[0])
    for name in ("prediction", "outputs_per_channel"):
        pairs.append((getattr(theirs[1], name), getattr(ours[1], name), f"diffusion.{name}"))
    return [pair for pair in pairs if pair[0] != pair[1]]


def _of_networks(theirs: NetworkConfig, ours: NetworkConfig) -> list[Difference]:
    """Return the pairs of two networks' fields that have to be equal, with their names."""
    if isinstance(theirs, UNetConfig) and isinstance(ours, UNetConfig):
        names = [field.name for field in dataclasses.fields(UNetConfig) if field.name not in _FREE]
        return [(getattr(theirs, n), getattr(ours, n), f"model.{n}") for n in names]
    named = (network_name(theirs) or None, network_name(ours) or None, f"model.{OWN_NETWORK}")
    if named[0] != named[1]:
        return [named]
    found, wanted = network_to_json(theirs), network_to_json(ours)
    names = sorted(found.keys() & wanted.keys())  # what a file leaves out is the package's default
    if "auto" in (found["num_classes"], wanted["num_classes"]):  # nobody knows yet
        names.remove("num_classes")
    return [(found.get(name), wanted.get(name), f"model.{name}") for name in names]
