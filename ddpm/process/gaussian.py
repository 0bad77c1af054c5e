"""The Gaussian diffusion of Ho et al. 2020: forward process, posterior, reverse step and losses.

Timesteps are 0-based: t in this code is the paper's t - 1, so x_start is the paper's x_0 and
t = 0 is the first noising step. Images are float32 (B, C, H, W) in [-1, 1]; t is (B,) int64 in
[0, T). The formulas are computed with the coefficients of `schedule.py`, cast once to float32.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ddpm.config import DiffusionConfig, Variance
from ddpm.process.schedule import NoiseSchedule, build_schedule

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""Takes x_t (B, C, H, W) float32 and t (B,) int64; returns what the model predicts, as x_t."""

_CAST_COEFFICIENTS = (
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)


class Gaussian(NamedTuple):
    """A normal distribution over images, with a variance for each image.

    Attributes:
        mean: (B, C, H, W) float32.
        variance: (B, 1, 1, 1) float32.
        log_variance: (B, 1, 1, 1) float32; at t = 0 that of t = 1, where the variance may be 0.
    """

    mean: Tensor
    variance: Tensor
    log_variance: Tensor


class ReverseStep(NamedTuple):
    """The model's distribution p(x_{t-1} | x_t) and the x_0 that it was made of.

    Attributes:
        mean: (B, C, H, W) float32.
        variance: (B, 1, 1, 1) float32.
        log_variance: (B, 1, 1, 1) float32.
        pred_xstart: (B, C, H, W) float32.
    """

    mean: Tensor
    variance: Tensor
    log_variance: Tensor
    pred_xstart: Tensor


class GaussianDiffusion(nn.Module):
    """The mathematics of one diffusion; it holds coefficients, and no weights.

    The coefficients are buffers outside the state dict: `.to(device)` moves them, and no
    checkpoint holds them.

    Attributes:
        config: What it was made of.
        schedule: The coefficients in float64, on the CPU.
    """

    betas: Tensor
    sqrt_alphas: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor
    sqrt_recip_alphas_cumprod: Tensor
    sqrt_recipm1_alphas_cumprod: Tensor
    posterior_variance: Tensor
    posterior_log_variance_clipped: Tensor
    posterior_mean_coef1: Tensor
    posterior_mean_coef2: Tensor
    model_variance: Tensor
    model_log_variance: Tensor
    loss_weight: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = build_schedule(config)
        schedule = self.schedule
        log_variance = model_log_variance(schedule, config.variance)
        tables = {name: getattr(schedule, name) for name in _CAST_COEFFICIENTS}
        tables["betas"] = schedule.betas
        tables["sqrt_alphas"] = schedule.alphas.sqrt()
        tables["model_log_variance"] = log_variance
        tables["model_variance"] = log_variance.exp()
        tables["loss_weight"] = _loss_weight(schedule, config)
        for name, table in tables.items():
            self.register_buffer(name, table.to(torch.float32), persistent=False)

    @property
    def num_timesteps(self) -> int:
        """T, the length of the chain."""
        return self.schedule.num_timesteps

    # The forward process.

    def q_step(self, x_prev: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Add the noise of the single step t: draw from q(x_t | x_{t-1}).

        Args:
            x_prev: (B, C, H, W) float32, x_{t-1}; x_start where t = 0.
            t: (B,) int64 in [0, T).
            noise: (B, C, H, W) float32, standard normal.

        Returns:
            x_t: (B, C, H, W) float32. Ho et al. 2020, eq. 2.
        """
        return _at(self.sqrt_alphas, t) * x_prev + _at(self.betas, t).sqrt() * noise

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Jump straight to step t: draw from q(x_t | x_0).

        Args:
            x_start: (B, C, H, W) float32 in [-1, 1].
            t: (B,) int64 in [0, T).
            noise: (B, C, H, W) float32, standard normal.

        Returns:
            x_t: (B, C, H, W) float32. Ho et al. 2020, eq. 4.
        """
        signal = _at(self.sqrt_alphas_cumprod, t) * x_start
        return signal + _at(self.sqrt_one_minus_alphas_cumprod, t) * noise

    def q_posterior_mean_variance(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> Gaussian:
        """Return q(x_{t-1} | x_t, x_0), which Ho et al. 2020 give in eq. 6 and 7.

        Args:
            x_start: (B, C, H, W) float32.
            x_t: (B, C, H, W) float32.
            t: (B,) int64 in [0, T).

        Returns:
            The posterior. Its variance is 0 at t = 0.
        """
        coef1, coef2 = _at(self.posterior_mean_coef1, t), _at(self.posterior_mean_coef2, t)
        return Gaussian(
            mean=coef1 * x_start + coef2 * x_t,
            variance=_at(self.posterior_variance, t),
            log_variance=_at(self.posterior_log_variance_clipped, t),
        )

    # Conversions between what a network may predict: eps, x_start, and the posterior mean.

    def predict_xstart_from_eps(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Return the x_start that x_t is made of if its noise is eps (Ho et al. 2020, eq. 4)."""
        recip, recipm1 = self.sqrt_recip_alphas_cumprod, self.sqrt_recipm1_alphas_cumprod
        return _at(recip, t) * x_t - _at(recipm1, t) * eps

    def predict_eps_from_xstart(self, x_t: Tensor, t: Tensor, x_start: Tensor) -> Tensor:
        """Return the noise that x_t holds if it is made of x_start: the inverse of the above."""
        recip, recipm1 = self.sqrt_recip_alphas_cumprod, self.sqrt_recipm1_alphas_cumprod
        return (_at(recip, t) * x_t - x_start) / _at(recipm1, t)

    def predict_xstart_from_mean(self, x_t: Tensor, t: Tensor, mean: Tensor) -> Tensor:
        """Return the x_start whose posterior has this mean (Ho et al. 2020, eq. 7, solved)."""
        coef1, coef2 = _at(self.posterior_mean_coef1, t), _at(self.posterior_mean_coef2, t)
        return (mean - coef2 * x_t) / coef1

    def predict_mean_from_xstart(self, x_t: Tensor, t: Tensor, x_start: Tensor) -> Tensor:
        """Return the mean of the posterior of x_start (Ho et al. 2020, eq. 7)."""
        return self.q_posterior_mean_variance(x_start, x_t, t).mean

    def predict_mean_from_eps(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Return the mean of the reverse step if x_t's noise is eps (Ho et al. 2020, eq. 11)."""
        scale = _at(self.betas, t) / _at(self.sqrt_one_minus_alphas_cumprod, t)
        return (x_t - scale * eps) / _at(self.sqrt_alphas, t)

    def predict_xstart(self, model_output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the x_start that a network's output stands for, by `config.prediction`.

        Args:
            model_output: (B, C, H, W) float32.
            x_t: (B, C, H, W) float32, the network's input.
            t: (B,) int64 in [0, T).

        Returns:
            (B, C, H, W) float32, not clipped.
        """
        if self.config.prediction == "epsilon":
            return self.predict_xstart_from_eps(x_t, t, model_output)
        if self.config.prediction == "mean":
            return self.predict_xstart_from_mean(x_t, t, model_output)
        return model_output

    # The reverse process.

    def p_mean_variance(
        self, model_output: Tensor, x_t: Tensor, t: Tensor, *, clip_denoised: bool
    ) -> ReverseStep:
        """Return the model's p(x_{t-1} | x_t), with the fixed variance that the config names.

        Args:
            model_output: (B, C, H, W) float32.
            x_t: (B, C, H, W) float32.
            t: (B,) int64 in [0, T).
            clip_denoised: Clip the predicted x_start to [-1, 1]. The mean is then that of the
                clipped one, also where the network predicts the mean itself; the codes of Ho and
                of Nichol & Dhariwal keep a predicted mean as it is.

        Returns:
            The distribution. At t = 0 its variance is posterior_variance of t = 1 for either
            choice: it is the decoder's; a sampler adds no noise there.
        """
        pred_xstart = self.predict_xstart(model_output, x_t, t)
        if clip_denoised:
            pred_xstart = pred_xstart.clamp(-1.0, 1.0)
        return ReverseStep(
            mean=self.predict_mean_from_xstart(x_t, t, pred_xstart),
            variance=_at(self.model_variance, t),
            log_variance=_at(self.model_log_variance, t),
            pred_xstart=pred_xstart,
        )

    # The losses.

    def training_target(self, x_start: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return what the network should have put out, by `config.prediction`."""
        if self.config.prediction == "epsilon":
            return noise
        if self.config.prediction == "mean":
            return self.predict_mean_from_xstart(x_t, t, x_start)
        return x_start

    def training_loss(
        self, model_output: Tensor, x_start: Tensor, x_t: Tensor, t: Tensor, noise: Tensor
    ) -> Tensor:
        """Return each image's loss: the mean over its pixels of a squared error.

        The "simple" loss is the error of whatever is predicted (for eps, Ho et al. 2020, eq. 14).
        The "weighted" loss multiplies it by the weight of the variational bound (eq. 8 for the
        mean, eq. 12 for eps), so that it is the Kullback-Leibler divergence between the posterior
        and the reverse step in nats a pixel, up to a constant, and the same for any prediction.

        Args:
            model_output: (B, C, H, W) float32.
            x_start: (B, C, H, W) float32 in [-1, 1].
            x_t: (B, C, H, W) float32, `q_sample(x_start, t, noise)`.
            t: (B,) int64 in [0, T).
            noise: (B, C, H, W) float32.

        Returns:
            (B,) float32.
        """
        target = self.training_target(x_start, x_t, t, noise)
        squared_error = (target - model_output.to(torch.float32)).square().flatten(1).mean(dim=1)
        if self.config.loss == "simple":
            return squared_error
        return self.loss_weight[t] * squared_error


def model_log_variance(schedule: NoiseSchedule, variance: Variance) -> Tensor:
    """Return log sigma_t^2 of the reverse process: (T,) float64. Ho et al. 2020, section 3.2."""
    if variance == "fixed_small":
        return schedule.posterior_log_variance_clipped
    return schedule.fixed_large_log_variance


def _loss_weight(schedule: NoiseSchedule, config: DiffusionConfig) -> Tensor:
    """Return the weight that the variational bound gives the squared error: (T,) float64.

    For eps it is beta^2 / (2 sigma^2 alpha (1 - alphas_cumprod)), Ho et al. 2020, eq. 12. With
    "fixed_small" the variance is 0 at t = 0, which belongs to L_0 and not to the divergences; it
    takes the decoder's variance there, so that training reaches that step too.
    """
    variance = schedule.betas
    if config.variance == "fixed_small":
        variance = schedule.posterior_log_variance_clipped.exp()
    if config.prediction == "mean":
        error_scale = torch.ones_like(variance)
    elif config.prediction == "x_start":
        error_scale = schedule.posterior_mean_coef1
    else:
        noise_variance = 1.0 - schedule.alphas_cumprod
        error_scale = schedule.betas / (schedule.alphas * noise_variance).sqrt()
    return error_scale.square() / (2.0 * variance)


def _at(table: Tensor, t: Tensor) -> Tensor:
    """Look up (T,) coefficients for (B,) timesteps, shaped (B, 1, 1, 1) to meet images."""
    return table[t].view(-1, 1, 1, 1)
