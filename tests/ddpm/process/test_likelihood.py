"""The bound in bits per dimension against scipy, brute force, and an exactly known likelihood."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats
from torch import Tensor

from ddpm.config import ConfigError, DiffusionConfig
from ddpm.process.code_length import discretized_gaussian_log_likelihood
from ddpm.process.gaussian import Denoiser, GaussianDiffusion
from ddpm.process.likelihood import (
    bits_per_dim,
    evaluation_timesteps,
    mean_and_error,
    prior_bpd,
)
from ddpm.process.noise import Stream, sample_noise

Array = npt.NDArray[np.float64]
VALUES = torch.arange(256) / 127.5 - 1.0


def _diffusion(**settings: Any) -> GaussianDiffusion:
    return GaussianDiffusion(DiffusionConfig(**{"num_timesteps": 40, **settings}))


def _images(num_images: int, shape: tuple[int, int, int] = (1, 4, 4), seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).integers(0, 256, size=(num_images, *shape))
    return torch.from_numpy(values).to(torch.float32) / 127.5 - 1.0


def _half_right(x_t: Tensor, t: Tensor) -> Tensor:
    """Predict a little of the noise: any fixed function of x_t and t will do."""
    return 0.6 * x_t + 0.01 * t.view(-1, 1, 1, 1)


def _gaussian_kl(mean: Array, variance: Array, other: Array, other_variance: Array) -> Array:
    """Return KL(N(mean, variance) || N(other, other_variance)) of each pixel."""
    kl = np.log(np.sqrt(other_variance / variance))
    return kl + (variance + (mean - other) ** 2) / (2.0 * other_variance) - 0.5


def _terms_by_hand(
    diffusion: GaussianDiffusion, denoiser: Denoiser, x_start: Tensor, indices: Tensor, seed: int
) -> tuple[Array, Array, Array]:
    """Compute L_T, L_{t-1} for t = 1..T-1 and L_0 from the definitions, with numpy and scipy."""
    betas = diffusion.schedule.betas.numpy()
    cumprod = np.concatenate([[1.0], np.cumprod(1.0 - betas)])
    x0 = x_start.double().numpy()
    num_images, bits = len(x0), math.log(2.0)
    last = cumprod[-1]
    one = np.ones_like(x0)
    prior = _gaussian_kl(np.sqrt(last) * x0, (1.0 - last) * one, 0.0 * one, one)
    denoising = np.zeros((num_images, len(betas) - 1))
    decoder = np.zeros(num_images)
    small = betas * (1.0 - cumprod[:-1]) / (1.0 - cumprod[1:])
    for step, beta in enumerate(betas):
        kept, prev = cumprod[step + 1], cumprod[step]
        noise = sample_noise(
            seed, indices, step, x_start.shape[1:], stream=Stream.EVALUATION_NOISE
        ).double().numpy()  # fmt: skip
        x_t = np.sqrt(kept) * x0 + np.sqrt(1.0 - kept) * noise
        t = torch.full((num_images,), step)
        eps = denoiser(torch.from_numpy(x_t.astype(np.float32)), t).double().numpy()
        pred = np.clip((x_t - np.sqrt(1.0 - kept) * eps) / np.sqrt(kept), -1.0, 1.0)
        if step == 0:
            scale = math.sqrt(small[1])
            edges = np.linspace(-1 - 1 / 255, 1 + 1 / 255, 257)
            edges[0], edges[-1] = -np.inf, np.inf
            bins = np.rint((x0 + 1.0) * 127.5).astype(int)
            upper = stats.norm.logcdf(edges[bins + 1], loc=pred, scale=scale)
            lower = stats.norm.logcdf(edges[bins], loc=pred, scale=scale)
            decoder = -np.mean(upper + np.log1p(-np.exp(lower - upper)), axis=(1, 2, 3)) / bits
            continue
        weights = np.sqrt(prev) * beta / (1.0 - kept), np.sqrt(1 - beta) * (1 - prev) / (1 - kept)
        sigma2 = beta if diffusion.config.variance == "fixed_large" else small[step]
        kl = _gaussian_kl(
            weights[0] * x0 + weights[1] * x_t,
            small[step] * one,
            weights[0] * pred + weights[1] * x_t,
            sigma2 * one,
        )
        denoising[:, step - 1] = np.mean(kl, axis=(1, 2, 3)) / bits
    return np.mean(prior, axis=(1, 2, 3)) / bits, denoising, decoder


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("betas", ["linear", "cosine"])
def test_each_term_equals_its_definition(variance: str, betas: str) -> None:
    """A likelihood that is off by a constant is worse than none: people compare it."""
    diffusion = _diffusion(variance=variance, betas=betas)
    x_start, indices = _images(5), torch.tensor([3, 1, 4, 15, 9])
    prior, denoising, decoder = _terms_by_hand(diffusion, _half_right, x_start, indices, seed=2)
    bound = bits_per_dim(_half_right, diffusion, x_start, indices, seed=2)
    np.testing.assert_allclose(bound.prior.numpy(), prior, rtol=1e-9)
    np.testing.assert_allclose(bound.terms.numpy(), denoising, rtol=2e-4)
    np.testing.assert_allclose(bound.denoising.numpy(), denoising.sum(axis=1), rtol=2e-5)
    np.testing.assert_allclose(bound.decoder.numpy(), decoder, rtol=2e-4)
    total = prior + denoising.sum(axis=1) + decoder
    np.testing.assert_allclose(bound.total.numpy(), total, rtol=1e-4)
    assert bound.total.dtype == torch.float64


def test_prior_term_is_a_tiny_constant() -> None:
    """L_T holds no weight; the published figure is for pixels that are all -1 or 1."""
    diffusion = GaussianDiffusion(DiffusionConfig())
    signs = _images(3).sign()
    np.testing.assert_allclose(prior_bpd(diffusion, signs).numpy(), 2.911e-05, atol=5e-9)
    denoisers: list[Callable[[Tensor, Tensor], Tensor]] = [_half_right, lambda x_t, t: -x_t]
    small, x_start = _diffusion(), _images(3)
    first, second = (
        bits_per_dim(denoiser, small, x_start, torch.arange(3), seed=0) for denoiser in denoisers
    )
    assert torch.equal(first.prior, second.prior)
    assert not torch.equal(first.denoising, second.denoising)


def test_bound_for_random_bytes_lies_a_little_above_8_bits() -> None:
    """They cost 8 bits each, and no model may claim fewer.

    The best mean pays less than 1 more, as the fixed variance of the first steps does not fit
    what is known of a byte there.
    """
    diffusion = _diffusion(num_timesteps=1000, variance="fixed_small")
    cumprod = diffusion.schedule.alphas_cumprod
    x_start = _images(12, (1, 8, 8))

    def best(x_t: Tensor, t: Tensor) -> Tensor:
        """Return eps for E[x_0 | x_t] under 256 equally likely values."""
        kept = cumprod[t].view(-1, 1, 1, 1)
        logits = -((x_t[..., None] - kept.sqrt()[..., None] * VALUES) ** 2)
        weights = (logits / (2.0 * (1.0 - kept))[..., None]).softmax(dim=-1)
        x_start = (weights * VALUES).sum(dim=-1)
        return ((x_t - kept.sqrt() * x_start) / (1.0 - kept).sqrt()).float()

    bound = bits_per_dim(best, diffusion, x_start, torch.arange(12), seed=1, num_timesteps=50)
    mean = float(bound.total.mean())
    margin = 4.0 * float(bound.total.std()) / math.sqrt(12)
    assert 8.0 - margin < mean < 9.0 + margin


@pytest.mark.parametrize("mean", [-1.3, -1.0, -0.4, 0.0019, 0.97, 2.0])
@pytest.mark.parametrize("scale", [0.0074, 0.05, 1.0])
def test_decoder_puts_mass_one_on_the_256_values(mean: float, scale: float) -> None:
    """If the bins overlapped or left a gap, the bits would not be those of a code."""
    x = VALUES.view(256, 1, 1, 1)
    log_mass = discretized_gaussian_log_likelihood(x, torch.full_like(x, mean), scale)
    assert bool(log_mass.isfinite().all())
    assert float(log_mass.exp().sum()) == pytest.approx(1.0, abs=1e-12)


def test_far_values_have_the_mass_of_the_exact_tail() -> None:
    """A bad network puts pixels 100 standard deviations away; their price must not saturate."""
    x = torch.tensor([200, 55]).view(2, 1, 1, 1) / 127.5 - 1.0
    mean = torch.zeros_like(x)
    log_mass = discretized_gaussian_log_likelihood(x, mean, 0.01).flatten()
    lower = (float(x[0]) - 1 / 255) / 0.01
    upper = (float(x[0]) + 1 / 255) / 0.01
    expected = stats.norm.logsf(lower) + math.log1p(
        -math.exp(stats.norm.logsf(upper) - stats.norm.logsf(lower))
    )
    assert float(log_mass[0]) == pytest.approx(expected, rel=1e-5)
    assert float(log_mass[1]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("prediction", ["x_start", "mean"])
def test_bound_is_the_same_whatever_the_network_predicts(prediction: str) -> None:
    """The bound is about the distribution, not about how the network says it."""
    x_start, indices = _images(3), torch.arange(3)
    expected = bits_per_dim(_half_right, _diffusion(), x_start, indices, seed=5)
    diffusion = _diffusion(prediction=prediction)

    def translated(x_t: Tensor, t: Tensor) -> Tensor:
        eps = _half_right(x_t, t)
        if prediction == "x_start":
            return diffusion.predict_xstart_from_eps(x_t, t, eps)
        return diffusion.predict_mean_from_eps(x_t, t, eps)

    found = bits_per_dim(translated, diffusion, x_start, indices, seed=5)
    np.testing.assert_allclose(found.total.numpy(), expected.total.numpy(), rtol=1e-3)


def test_estimate_from_few_timesteps_is_unbiased_and_close() -> None:
    """Full sums cost T passes an image; an estimate must centre on them to be worth logging."""
    diffusion, x_start = _diffusion(num_timesteps=200), _images(1)
    repeated = x_start.expand(300, -1, -1, -1)

    def still(x_t: Tensor, t: Tensor) -> Tensor:
        return 0.5 * x_t  # the noise differs from image to image, so the sums do as well

    whole = bits_per_dim(still, diffusion, repeated, torch.arange(300), seed=0)
    for num_timesteps in (3, 10, 50):
        some = bits_per_dim(
            still, diffusion, repeated, torch.arange(300), seed=0, num_timesteps=num_timesteps
        )
        error = (some.denoising - whole.denoising).numpy()
        assert some.terms.shape == (300, num_timesteps - 1)
        assert abs(error.mean()) < 4.0 * error.std() / math.sqrt(300)
        assert torch.equal(some.decoder, whole.decoder)
        if num_timesteps == 50:
            assert error.std() < 0.05 * float(whole.denoising.mean())


@pytest.mark.parametrize("num_timesteps", [2, 3, 10, 99, 100, None])
def test_strata_partition_the_timesteps(num_timesteps: int | None) -> None:
    """Each t in [1, T) must be in one stratum and drawn from it evenly, or the sum is biased."""
    drawn, sizes = evaluation_timesteps(3, torch.arange(2000), num_timesteps, 100)
    edges = 1 + np.concatenate([[0], np.cumsum(sizes.numpy())])
    assert edges[-1] == 100
    assert int(sizes.min()) >= 1
    for column, (low, high) in enumerate(pairwise(edges)):
        values = drawn[:, column].numpy()
        assert values.min() >= low
        assert values.max() < high
        if high - low > 1:
            counts = np.bincount(values - low, minlength=high - low)
            assert stats.chisquare(counts).pvalue > 1e-4


def test_all_timesteps_are_taken_when_all_are_asked_for() -> None:
    """Then nothing is estimated: the bound is the plain sum."""
    drawn, sizes = evaluation_timesteps(3, torch.arange(2), 40, 40)
    assert drawn.tolist() == [list(range(1, 40))] * 2
    assert sizes.tolist() == [1] * 39


@pytest.mark.parametrize("num_timesteps", [-1, 0, 1, 41])
def test_number_of_timesteps_out_of_range_is_refused(num_timesteps: int) -> None:
    """One timestep would leave out L_{t-1} altogether."""
    with pytest.raises(ConfigError, match=r"num_timesteps must be in \[2, 40\]"):
        evaluation_timesteps(0, torch.arange(1), num_timesteps, 40)


def test_value_of_an_image_does_not_depend_on_its_batch() -> None:
    """Held-out sets are cut by memory and by worker; the number must not know."""
    diffusion, x_start = _diffusion(), _images(6)
    indices = torch.arange(6) + 100
    whole = bits_per_dim(_half_right, diffusion, x_start, indices, seed=1, num_timesteps=8)
    part = bits_per_dim(_half_right, diffusion, x_start[4:], indices[4:], seed=1, num_timesteps=8)
    assert torch.equal(part.timesteps, whole.timesteps[4:])
    np.testing.assert_allclose(part.total.numpy(), whole.total[4:].numpy(), rtol=1e-12)


def test_evaluation_keeps_no_gradient() -> None:
    """The bound is a measurement; its graph would hold every pass of the network."""
    weight = torch.ones(1, requires_grad=True)
    bound = bits_per_dim(
        lambda x_t, t: weight * x_t, _diffusion(), _images(2), torch.arange(2), seed=0
    )
    assert not bound.total.requires_grad


def test_the_standard_error_is_that_of_the_mean() -> None:
    """Two runs that differ by less than it are not to be told apart."""
    values = torch.tensor([4.0, 5.0, 7.0, 8.0], dtype=torch.float64)
    mean, error = mean_and_error(values)
    assert mean == 6.0
    assert error == pytest.approx(stats.sem(values.numpy()), rel=1e-12)
    assert mean_and_error(values[:1]) == (4.0, None)
