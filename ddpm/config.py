"""The numbers that describe a model, a diffusion, a training run and a sampler.

The one place from which they are imported; `ddpm.settings` has a module for each, and they are the
home of every default of the mathematics. A value that is out of range raises `ConfigError`, which
names the field, so that whoever read it from a file can point at the line.
"""

from ddpm.settings.diffusion import ONE_STEP, Betas, DiffusionConfig
from ddpm.settings.fields import ConfigError, Precision, Prediction, Variance, check_precision
from ddpm.settings.network import MAX_IMAGE_CHANNELS, Family, UNetConfig, num_groups
from ddpm.settings.sampling import SamplingConfig, Spacing
from ddpm.settings.training import TrainingConfig

__all__ = [
    "MAX_IMAGE_CHANNELS",
    "ONE_STEP",
    "Betas",
    "ConfigError",
    "DiffusionConfig",
    "Family",
    "Precision",
    "Prediction",
    "SamplingConfig",
    "Spacing",
    "TrainingConfig",
    "UNetConfig",
    "Variance",
    "check_precision",
    "num_groups",
]
