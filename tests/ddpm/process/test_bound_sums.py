"""The bound over many images and draws, against a Gaussian whose exact bound is known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.config import DiffusionConfig
from ddpm.process.bound_sums import BoundSums, measure_bound
from ddpm.process.gaussian import GaussianDiffusion, model_log_variance

SPREAD = 0.5  # standard deviation of the toy's pixels


def _diffusion() -> GaussianDiffusion:
    return GaussianDiffusion(DiffusionConfig(num_timesteps=30, variance="fixed_large"))


def _gaussian_images(num_images: int) -> Tensor:
    noise = np.random.default_rng(3).normal(0.0, SPREAD, (num_images, 1, 4, 4))
    return torch.from_numpy(noise).float()


def _best(diffusion: GaussianDiffusion, x_t: Tensor, t: Tensor) -> Tensor:
    """Return eps for E[x_0 | x_t], which is linear where the pixels are Gaussian."""
    kept = diffusion.schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
    x_start = kept.sqrt() * SPREAD**2 / (kept * SPREAD**2 + 1.0 - kept) * x_t
    return ((x_t - kept.sqrt() * x_start) / (1.0 - kept).sqrt()).float()


def _exact(
    diffusion: GaussianDiffusion,
) -> tuple[float, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Return E[L_T] and E[L_{t-1}] for t = 1..T-1 in bits, in closed form."""
    schedule = diffusion.schedule
    kept = schedule.alphas_cumprod.numpy()
    missed = SPREAD**2 * (1.0 - kept) / (kept * SPREAD**2 + 1.0 - kept)  # of E[x_0 | x_t]
    ratio = schedule.posterior_log_variance_clipped.numpy()
    log_variance = model_log_variance(schedule, "fixed_large").numpy()
    ratio = ratio - log_variance
    shift = schedule.posterior_mean_coef1.numpy() ** 2 * missed / np.exp(log_variance)
    terms = 0.5 * (np.exp(ratio) - 1.0 - ratio + shift) / math.log(2.0)
    prior = 0.5 * (kept[-1] * (SPREAD**2 - 1.0) - math.log1p(-kept[-1])) / math.log(2.0)
    return float(prior), terms[1:]


def _measured(num_images: int, num_draws: int, num_timesteps: int | None = None) -> BoundSums:
    diffusion = _diffusion()
    return measure_bound(
        lambda x_t, t: _best(diffusion, x_t, t),
        diffusion,
        _gaussian_images(num_images),
        torch.arange(num_images),
        seed=4,
        num_draws=num_draws,
        num_timesteps=num_timesteps,
        clip_denoised=False,
        num_levels=None,
    )


@pytest.mark.parametrize("num_timesteps", [None, 6])
def test_the_bound_of_a_gaussian_is_the_exact_one(num_timesteps: int | None) -> None:
    """Each part and each point of the curve must lie within its own standard error."""
    sums = _measured(600, 2, num_timesteps)
    prior, terms = _exact(_diffusion())
    means, curve = sums.means(), sums.curve()
    exact = {"bpd": prior + terms.sum(), "bpd_prior": prior, "bpd_denoising": terms.sum()}
    for name, value in exact.items():
        assert abs(means[name] - value) < 4.0 * means[f"{name}_se"]
    assert means["bpd_decoder"] == 0.0  # of real numbers there is none
    found, error = np.array(curve["bits"]), np.array(curve["se"])
    assert curve["t"] == list(range(1, 30))
    assert np.all(np.abs(found - terms) < 4.5 * error)


def test_standard_errors_are_those_of_means_over_many_sets() -> None:
    """Whoever compares two models relies on them; here they are seen from outside."""
    means, diffusion = [], _diffusion()
    for start in range(0, 600, 20):
        images, indices = _gaussian_images(600)[start : start + 20], torch.arange(start, start + 20)
        part = measure_bound(
            lambda x_t, t: _best(diffusion, x_t, t), diffusion, images, indices,
            seed=1, num_draws=2, num_timesteps=4, clip_denoised=False, num_levels=None,
        )  # fmt: skip
        means.append(part.means())
    seen = np.std([mean["bpd"] for mean in means], ddof=1)
    told = math.sqrt(np.mean([mean["bpd_se"] ** 2 for mean in means]))
    assert 0.6 < seen / told < 1.6
    drawn = math.sqrt(np.mean([mean["bpd_draws_se"] ** 2 for mean in means]))
    assert drawn < 1.1 * told  # a part of it


def test_draws_are_independent_and_their_own_error_shrinks_with_their_number() -> None:
    """Otherwise more draws would promise an accuracy that is not there."""
    few, many = _measured(40, 2, 4), _measured(40, 32, 4)
    assert np.array_equal(few.denoising, many.denoising[:, :2])  # a draw does not know the others
    assert len(np.unique(many.denoising[0])) == 32
    ratio = few.means()["bpd_draws_se"] / many.means()["bpd_draws_se"]
    assert 2.0 < ratio < 8.0  # about the root of 16


def test_parts_joined_are_the_whole() -> None:
    """A fleet computes it by shards."""
    diffusion, images = _diffusion(), _gaussian_images(10)

    def measured(first: int, last: int) -> BoundSums:
        return measure_bound(
            lambda x_t, t: 0.4 * x_t, diffusion, images[first:last], torch.arange(first, last),
            seed=0, num_draws=2, num_timesteps=5, num_levels=None,
        )  # fmt: skip

    whole, joined = measured(0, 10), BoundSums.joined([measured(0, 7), measured(7, 10)])
    assert (joined.num_images, joined.num_draws) == (10, 2)
    np.testing.assert_allclose(joined.total, whole.total, rtol=1e-6)
    np.testing.assert_array_equal(joined.term_counts, whole.term_counts)
    assert joined.means() == pytest.approx(whole.means(), rel=1e-5)
    assert joined.curve()["bits"] == pytest.approx(whole.curve()["bits"], rel=1e-5)


def test_one_image_and_one_draw_claim_no_error() -> None:
    """An error that cannot be known is not 0."""
    assert set(_measured(1, 1).means()) == {"bpd", "bpd_prior", "bpd_denoising", "bpd_decoder"}
