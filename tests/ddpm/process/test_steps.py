"""The solvers of second order, on a Gaussian whose exact trajectory is known."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.config import ConfigError, DiffusionConfig, SamplingConfig
from ddpm.process.gaussian import Denoiser, GaussianDiffusion
from ddpm.process.sampling import ChainState, draw, sample_chain
from ddpm.process.spacing import sampling_timesteps
from ddpm.process.steps import plan_steps

MEAN, STD = 0.3, 0.4
SHAPE = (1, 4, 4)
LONG = DiffusionConfig(num_timesteps=20_000, prediction="x_start")
SCHEDULES: list[dict[str, Any]] = [
    {"betas": "linear"},
    {"betas": "cosine"},
    {"betas": "sigmoid"},
    {"betas": "scaled_linear"},
    {"betas": "linear", "rescale_zero_snr": True},
    {"betas": "cosine", "rescale_zero_snr": True},
]


def best_network(diffusion: GaussianDiffusion) -> Denoiser:
    """Return E[x_0 | x_t] of pixels that are N(MEAN, STD^2), each on its own."""
    cumprod = diffusion.schedule.alphas_cumprod.tolist()

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        kept = cumprod[int(t[0])]
        gain = kept**0.5 * STD**2 / (kept * STD**2 + 1.0 - kept)
        expected: Tensor = MEAN + gain * (x_t.double() - kept**0.5 * MEAN)
        return expected.float()

    return predict


def exact(x_end: Tensor, kept_end: float, kept: float) -> Tensor:
    """Follow the differential equation's exact trajectory from one noise level to another.

    Along it, an image keeps its distance from the mean in standard deviations.
    """
    deviation = (x_end.double() - kept_end**0.5 * MEAN) / (kept_end * STD**2 + 1 - kept_end) ** 0.5
    moved: Tensor = kept**0.5 * MEAN + deviation * (kept * STD**2 + 1 - kept) ** 0.5
    return moved


def error_of(method: str, num_steps: int) -> float:
    """Return how far a chain is off where its last step, that to x_0, would begin."""
    diffusion = GaussianDiffusion(LONG)
    config = SamplingConfig(
        method=method,  # type: ignore[arg-type]
        num_steps=num_steps,
        spacing="logsnr",
        clip_denoised=False,
    )
    states = list(sample_chain(best_network(diffusion), diffusion, config, torch.arange(4), SHAPE))
    cumprod = diffusion.schedule.alphas_cumprod
    wanted = exact(states[0].x, float(cumprod[-1]), float(cumprod[0]))
    return float((states[-2].x - wanted).square().mean().sqrt())


@pytest.mark.parametrize(("method", "order"), [("ddim", 1.0), ("dpm++2m", 2.0), ("heun", 2.0)])
def test_twice_the_steps_divide_the_error_as_the_order_says(method: str, order: float) -> None:
    """A wrong weight of what is remembered leaves a solver at first order, and looks plausible."""
    errors = [error_of(method, num_steps) for num_steps in (20, 40, 80)]
    found = [np.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert found[-1] == pytest.approx(order, abs=0.35), (errors, found)


def test_the_multistep_solver_is_that_of_its_paper() -> None:
    """Lu et al. 2022b, algorithm 2, written with lambda and phi, against the planned weights."""
    diffusion = GaussianDiffusion(DiffusionConfig(num_timesteps=100, prediction="x_start"))
    config = SamplingConfig(method="dpm++2m", num_steps=8, clip_denoised=False, seed=3)
    states = list(sample_chain(best_network(diffusion), diffusion, config, torch.arange(2), SHAPE))
    kept = diffusion.schedule.alphas_cumprod[sampling_timesteps(config, 100)].numpy()[::-1]
    alpha, sigma = np.append(np.sqrt(kept), 1.0), np.append(np.sqrt(1.0 - kept), 0.0)
    lam = np.log(alpha[:-1] / sigma[:-1])
    network, visited = best_network(diffusion), sampling_timesteps(config, 100)[::-1]
    x, old = states[0].x.double(), None
    for i in range(7):
        x_0 = network(x.float(), torch.tensor([visited[i]])).double()
        h = lam[i + 1] - lam[i]
        d = x_0
        if old is not None:
            r = (lam[i] - lam[i - 1]) / h
            d = (1.0 + 1.0 / (2.0 * r)) * x_0 - 1.0 / (2.0 * r) * old
        x = sigma[i + 1] / sigma[i] * x - alpha[i + 1] * np.expm1(-h) * d
        old = x_0
        torch.testing.assert_close(states[i + 1].x.double(), x, rtol=1e-5, atol=1e-5)
    x_0 = network(x.float(), torch.tensor([0]))
    torch.testing.assert_close(states[-1].x, x_0, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("method", ["dpm++2m", "heun", "dpm++2m_sde"])
@pytest.mark.parametrize(
    ("spacing", "tolerance"), [("linear", 0.25), ("logsnr", 0.08), ("karras", 0.25)]
)
def test_solvers_draw_the_data_on_every_schedule(
    method: str, tolerance: float, schedule: dict[str, Any], spacing: str
) -> None:
    """The cosine's last step keeps 5e-5 of the image, a rescaled one nothing: no weight bursts."""
    diffusion = GaussianDiffusion(DiffusionConfig(num_timesteps=1000, prediction="v", **schedule))
    as_x_start = GaussianDiffusion(
        DiffusionConfig(num_timesteps=1000, prediction="x_start", **schedule)
    )
    network = best_network(as_x_start)

    def predict_v(x_t: Tensor, t: Tensor) -> Tensor:
        kept = diffusion.schedule.alphas_cumprod[int(t[0])]
        # Of x_t = a x_0 + s eps, v = (a x_t - x_0) / s.
        return ((kept.sqrt() * x_t - network(x_t, t)) / (1.0 - kept).sqrt()).float()

    config = SamplingConfig(
        method=method,  # type: ignore[arg-type]
        num_steps=50,
        spacing=spacing,  # type: ignore[arg-type]
        clip_denoised=False,
    )
    x = draw(predict_v, diffusion, config, torch.arange(128), SHAPE)
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.04)
    assert float(x.std()) == pytest.approx(STD, rel=tolerance)


def test_a_chain_that_looks_back_needs_its_memory() -> None:
    """Without it the next step would be of first order: other images, without a sound."""
    diffusion = GaussianDiffusion(DiffusionConfig(num_timesteps=100, prediction="x_start"))
    config = SamplingConfig(method="dpm++2m", num_steps=8)
    network = best_network(diffusion)
    start = ChainState(torch.zeros(2, *SHAPE), 3)
    chain = sample_chain(network, diffusion, config, torch.arange(2), SHAPE, start=start)
    with pytest.raises(ValueError, match="without its memory"):
        next(chain)


def test_heun_asks_the_network_twice_a_step_but_the_last() -> None:
    """That is what it costs, and what a plan says."""
    diffusion, heard = GaussianDiffusion(DiffusionConfig(prediction="x_start")), list[int]()
    network = best_network(diffusion)

    def listen(x_t: Tensor, t: Tensor) -> Tensor:
        heard.append(int(t[0]))
        return network(x_t, t)

    config = SamplingConfig(method="heun", num_steps=5)
    draw(listen, diffusion, config, torch.arange(1), SHAPE)
    assert heard == [999, 749, 749, 499, 499, 249, 249, 0, 0]
    assert config.num_evaluations == len(heard)


@pytest.mark.parametrize("spacing", ["logsnr", "karras"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("num_steps", [2, 7, 20, 999, 1000])
def test_grids_of_noise_levels_are_distinct_and_reach_both_ends(
    spacing: str, schedule: dict[str, Any], num_steps: int
) -> None:
    """Several levels fall on one timestep where the noise grows slowly."""
    diffusion = GaussianDiffusion(DiffusionConfig(prediction="v", **schedule))
    config = SamplingConfig(method="dpm++2m", num_steps=num_steps, spacing=spacing)  # type: ignore[arg-type]
    visited = sampling_timesteps(config, 1000, diffusion.schedule)
    assert (len(visited), visited[0], visited[-1]) == (num_steps, 0, 999)
    assert all(a < b for a, b in pairwise(visited))


@pytest.mark.parametrize("method", ["dpm++2m", "dpm++2m_sde", "heun"])
def test_a_single_step_of_second_order_is_refused(method: Any) -> None:
    """It would be another method's step under this one's name."""
    with pytest.raises(ConfigError, match="num_steps must be at least 2"):
        SamplingConfig(method=method, num_steps=1)


def test_a_variance_that_was_not_learned_is_refused() -> None:
    """Half of an image's channels would be read as a variance."""
    config = SamplingConfig(num_steps=10, variance="learned")
    with pytest.raises(ConfigError, match="variance must be fixed_small or fixed_large"):
        plan_steps(config, GaussianDiffusion(DiffusionConfig()))


def test_a_learned_variance_lies_between_its_bounds() -> None:
    """Nichol & Dhariwal 2021, eq. 15, on a shortened chain, whose betas are its own."""
    diffusion = GaussianDiffusion(DiffusionConfig(num_timesteps=100, variance="learned"))
    config = SamplingConfig(num_steps=10, clip_denoised=False)
    both = {}
    for share, variance in ((-1.0, "fixed_small"), (1.0, "fixed_large")):

        def learned(x_t: Tensor, t: Tensor, share: float = share) -> Tensor:
            return torch.cat([0.3 * x_t, torch.full_like(x_t, share)], dim=1)

        found = list(sample_chain(learned, diffusion, config, torch.arange(2), SHAPE))
        fixed = SamplingConfig(num_steps=10, clip_denoised=False, variance=variance)  # type: ignore[arg-type]
        plain = GaussianDiffusion(DiffusionConfig(num_timesteps=100))
        chain = sample_chain(lambda x, t: 0.3 * x, plain, fixed, torch.arange(2), SHAPE)
        both[variance] = (found, list(chain))
    for found, wanted in both.values():
        # All but the last noisy step, whose small variance is that of the step before it.
        torch.testing.assert_close(found[8].x, wanted[8].x, rtol=1e-4, atol=1e-4)
