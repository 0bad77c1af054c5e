"""What each loss multiplies the squared error of the network's output by: one table for all.

An output that is off by d means an x_0 that is off by a multiple of d, and a mean of the reverse
step that is off by another; both depend on what the output stands for, and on t. So each loss is
said once, as the weight of the error of the mean or of x_0, and follows for every prediction.
"""

import torch
from torch import Tensor

from ddpm.config import DiffusionConfig, Prediction
from ddpm.process.schedule import NoiseSchedule


def loss_weights(schedule: NoiseSchedule, config: DiffusionConfig) -> Tensor:
    """Return the weight of the squared error of the network's output: (T,) float64.

    "simple" is 1. "weighted" is 1 / (2 sigma^2) of the mean's error: for eps beta^2 / (2 sigma^2
    alpha (1 - alphas_cumprod)), Ho et al. 2020, eq. 12. "min_snr" is min(SNR, gamma) of x_0's
    error, Hang et al. 2023, eq. 7 and 8: for eps min(SNR, gamma) / SNR, for v min(SNR, gamma) /
    (SNR + 1).
    """
    if config.loss == "simple":
        return torch.ones_like(schedule.betas)
    mean_scale = mean_error_scale(schedule, config.prediction)
    if config.loss == "weighted":
        return mean_scale.square() / (2.0 * _variance(schedule, config))
    snr = signal_to_noise_ratio(schedule)
    xstart_scale = mean_scale / schedule.posterior_mean_coef1
    return snr.clamp(max=config.min_snr_gamma) * xstart_scale.square()


def mean_error_scale(schedule: NoiseSchedule, prediction: Prediction) -> Tensor:
    """Return how far the reverse step's mean is off where the output is off by 1: (T,) float64."""
    coef1, noise_variance = schedule.posterior_mean_coef1, 1.0 - schedule.alphas_cumprod
    if prediction == "mean":
        return torch.ones_like(coef1)
    if prediction == "x_start":
        return coef1
    if prediction == "v":
        return coef1 * noise_variance.sqrt()
    return schedule.betas / (schedule.alphas * noise_variance).sqrt()


def signal_to_noise_ratio(schedule: NoiseSchedule) -> Tensor:
    """Return alphas_cumprod / (1 - alphas_cumprod): (T,) float64."""
    return schedule.alphas_cumprod / (1.0 - schedule.alphas_cumprod)


def _variance(schedule: NoiseSchedule, config: DiffusionConfig) -> Tensor:
    """Return sigma^2 of the reverse step, as the bound's weight takes it: (T,) float64.

    "fixed_small" is 0 at t = 0, which belongs to L_0 and not to the divergences; it takes the
    decoder's variance there, so that training reaches that step too.
    """
    if config.variance == "fixed_small":
        return schedule.posterior_log_variance_clipped.exp()
    return schedule.betas
