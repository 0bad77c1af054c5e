"""The numbers that describe a model, a diffusion, a training run and a sampler.

The one place from which they are imported; `ddpm.settings` has a module for each, and they are the
home of every default of the mathematics. A value that is out of range raises `ConfigError`, which
names the field, so that whoever read it from a file can point at the line.
"""

from ddpm.settings.classes import MAX_IMAGE_CHANNELS
from ddpm.settings.diffusion import ONE_STEP, Betas, DiffusionConfig
from ddpm.settings.fields import ConfigError, Precision, Prediction, Variance, check_precision
from ddpm.settings.network import NUM_AUGMENTATIONS, Family, UNetConfig, num_groups
from ddpm.settings.own import (
    OWN_NETWORK,
    NetworkConfig,
    OwnConfig,
    network_name,
    network_to_json,
)
from ddpm.settings.sampling import SamplingConfig, Spacing
from ddpm.settings.training import TrainingConfig
from ddpm.settings.weights import differing_weights

__all__ = [
    "MAX_IMAGE_CHANNELS",
    "NUM_AUGMENTATIONS",
    "ONE_STEP",
    "OWN_NETWORK",
    "Betas",
    "ConfigError",
    "DiffusionConfig",
    "Family",
    "NetworkConfig",
    "OwnConfig",
    "Precision",
    "Prediction",
    "SamplingConfig",
    "Spacing",
    "TrainingConfig",
    "UNetConfig",
    "Variance",
    "check_precision",
    "differing_weights",
    "network_name",
    "network_to_json",
    "num_groups",
]
