"""The Gaussian diffusion of Ho et al. 2020: forward process, posterior, reverse step and losses.

Timesteps are 0-based: t in this code is the paper's t - 1, so x_start is the paper's x_0 and
t = 0 is the first noising step. Images are float32 (B, C, H, W) in [-1, 1]; t is (B,) int64 in
[0, T). The formulas are computed with the coefficients of `schedule.py`, cast once to float32.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ddpm.config import DiffusionConfig, Variance
from ddpm.process.code_length import discretized_gaussian_log_likelihood, gaussian_divergence
from ddpm.process.schedule import NoiseSchedule, build_schedule
from ddpm.process.weights import loss_weights

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""Takes x_t (B, C, H, W) float32 and t (B,) int64; returns what the model predicts, as x_t.

Where the variance is learned, that has 2 C channels: behind the prediction its place between the
two fixed variances, -1 for the small one and 1 for the large.
"""

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
        variance: (B, 1, 1, 1) float32, or as the mean where it is learned.
        log_variance: As variance.
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
    min_log_variance: Tensor
    max_log_variance: Tensor
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
        tables["min_log_variance"] = schedule.posterior_log_variance_clipped
        tables["max_log_variance"] = schedule.betas.log()
        tables["loss_weight"] = loss_weights(schedule, config)
        for name, table in tables.items():
            self.register_buffer(name, table.to(torch.float32), persistent=False)

    @property
    def num_timesteps(self) -> int:
        """T, the length of the chain."""
        return self.schedule.num_timesteps

    # The forward process.

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

    # Conversions between what a network may predict: eps, x_start, v, and the posterior mean.

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

    def predict_xstart_from_v(self, x_t: Tensor, t: Tensor, v: Tensor) -> Tensor:
        """Return the x_start that x_t and v give (Salimans & Ho 2022, section 4)."""
        signal, noise = self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod
        return _at(signal, t) * x_t - _at(noise, t) * v

    def predict_v(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return the v of an image and its noise: sqrt(a) noise - sqrt(1 - a) x_start."""
        signal, noise_scale = self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod
        return _at(signal, t) * noise - _at(noise_scale, t) * x_start

    def predict_xstart(self, model_output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the x_start that a network's output stands for, by `config.prediction`.

        Args:
            model_output: (B, C, H, W) float32; 2 C channels where the variance is learned.
            x_t: (B, C, H, W) float32, the network's input.
            t: (B,) int64 in [0, T).

        Returns:
            (B, C, H, W) float32, not clipped.
        """
        predicted = self.predicted(model_output)
        if self.config.prediction == "epsilon":
            return self.predict_xstart_from_eps(x_t, t, predicted)
        if self.config.prediction == "mean":
            return self.predict_xstart_from_mean(x_t, t, predicted)
        if self.config.prediction == "v":
            return self.predict_xstart_from_v(x_t, t, predicted)
        return predicted

    def predicted(self, model_output: Tensor) -> Tensor:
        """Return a network's output without the variance, where it has learned one."""
        return model_output.chunk(2, dim=1)[0] if self.has_learned_variance else model_output

    @property
    def has_learned_variance(self) -> bool:
        """Whether the network's output has a variance behind its prediction."""
        return self.config.variance == "learned"

    def log_variance(self, model_output: Tensor, t: Tensor) -> Tensor:
        """Return log sigma_t^2 of the reverse step, (B, 1, 1, 1) or, if learned, (B, C, H, W).

        A learned one lies between log beta and that of the posterior, in the share that the network
        says (Nichol & Dhariwal 2021, eq. 15).
        """
        if not self.has_learned_variance:
            return _at(self.model_log_variance, t)
        share = (model_output.chunk(2, dim=1)[1] + 1.0) / 2.0
        largest, smallest = _at(self.max_log_variance, t), _at(self.min_log_variance, t)
        return share * largest + (1.0 - share) * smallest

    # The reverse process.

    def p_mean_variance(
        self, model_output: Tensor, x_t: Tensor, t: Tensor, *, clip_denoised: bool
    ) -> ReverseStep:
        """Return the model's p(x_{t-1} | x_t), with the variance that the config names.

        The form of the papers. Samplers fold it into a few weights a step (`ddpm.process.steps`);
        tests hold a whole chain of theirs to this one.

        Args:
            model_output: (B, C, H, W) float32; 2 C channels where the variance is learned.
            x_t: (B, C, H, W) float32.
            t: (B,) int64 in [0, T).
            clip_denoised: Clip the predicted x_start to [-1, 1]. The mean is then that of the
                clipped one, also where the network predicts the mean itself; the codes of Ho and
                of Nichol & Dhariwal keep a predicted mean as it is.

        Returns:
            The distribution. At t = 0 a fixed variance is posterior_variance of t = 1 for either
            choice: it is the decoder's; a sampler adds no noise there.
        """
        pred_xstart = self.predict_xstart(model_output, x_t, t)
        if clip_denoised:
            pred_xstart = pred_xstart.clamp(-1.0, 1.0)
        log_variance, variance = self.log_variance(model_output, t), _at(self.model_variance, t)
        return ReverseStep(
            mean=self.predict_mean_from_xstart(x_t, t, pred_xstart),
            variance=log_variance.exp() if self.has_learned_variance else variance,
            log_variance=log_variance,
            pred_xstart=pred_xstart,
        )

    # The losses.

    def training_target(self, x_start: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return what the network should have put out, by `config.prediction`."""
        if self.config.prediction == "epsilon":
            return noise
        if self.config.prediction == "mean":
            return self.predict_mean_from_xstart(x_t, t, x_start)
        if self.config.prediction == "v":
            return self.predict_v(x_start, t, noise)
        return x_start

    def training_loss(
        self, model_output: Tensor, x_start: Tensor, x_t: Tensor, t: Tensor, noise: Tensor
    ) -> Tensor:
        """Return each image's loss: the squared error of what is predicted, weighted as it says.

        Without weights that is L_simple (for eps, Ho et al. 2020, eq. 14). With those of the
        variational bound (eq. 8 for the mean, eq. 12 for eps) it is the Kullback-Leibler divergence
        between the posterior and the reverse step in nats a pixel, up to a constant, and the same
        for any prediction. `ddpm.process.weights` has the table. With a learned variance the bound
        is added: L_hybrid (Nichol & Dhariwal 2021, eq. 16).

        Args:
            model_output: (B, C, H, W) float32; 2 C channels where the variance is learned.
            x_start: (B, C, H, W) float32 in [-1, 1].
            x_t: (B, C, H, W) float32, `q_sample(x_start, t, noise)`.
            t: (B,) int64 in [0, T).
            noise: (B, C, H, W) float32.

        Returns:
            (B,) float32: a mean over pixels.
        """
        target = self.training_target(x_start, x_t, t, noise)
        predicted = self.predicted(model_output.to(torch.float32))
        squared_error = (target - predicted).square().flatten(1).mean(dim=1)
        if self.config.loss != "simple":
            squared_error = self.loss_weight[t] * squared_error
        if not self.has_learned_variance:
            return squared_error
        bound = self.bound_of_variance(model_output.to(torch.float32), x_start, x_t, t)
        return squared_error + self.config.vlb_weight * self.num_timesteps * bound

    def bound_of_variance(
        self, model_output: Tensor, x_start: Tensor, x_t: Tensor, t: Tensor
    ) -> Tensor:
        """Return L_{t-1}, or L_0 at t = 0, of which only the learned variance has a gradient.

        Args:
            model_output: (B, 2 C, H, W) float32.
            x_start: (B, C, H, W) float32 in [-1, 1].
            x_t: (B, C, H, W) float32.
            t: (B,) int64 in [0, T).

        Returns:
            (B,) float32 in bits per dimension, as in the code of Nichol & Dhariwal 2021.
        """
        pred_xstart = self.predict_xstart(model_output.detach(), x_t, t)
        log_variance = self.log_variance(model_output, t)
        divergence = gaussian_divergence(
            _at(self.min_log_variance, t),
            log_variance,
            _at(self.posterior_mean_coef1, t) * (x_start - pred_xstart),
        )
        scale = torch.exp(0.5 * log_variance.to(torch.float64))
        decoder = -discretized_gaussian_log_likelihood(x_start, pred_xstart, scale)
        is_first = (t == 0).view(-1, 1, 1, 1)
        nats = torch.where(is_first, decoder.to(torch.float32), divergence)
        return nats.flatten(1).mean(dim=1) / math.log(2.0)


def model_log_variance(schedule: NoiseSchedule, variance: Variance) -> Tensor:
    """Return log sigma_t^2 of the reverse process: (T,) float64. Ho et al. 2020, section 3.2.

    Where it is learned, this is the smallest that it can be.
    """
    if variance != "fixed_large":
        return schedule.posterior_log_variance_clipped
    return schedule.fixed_large_log_variance


def _at(table: Tensor, t: Tensor) -> Tensor:
    """Look up (T,) coefficients for (B,) timesteps, shaped (B, 1, 1, 1) to meet images."""
    return table[t].view(-1, 1, 1, 1)
