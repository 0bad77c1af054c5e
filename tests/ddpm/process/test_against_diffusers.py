"""Schedules, weights and samplers beside diffusers' own, where that extra is installed."""

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.config import DiffusionConfig, SamplingConfig
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.sampling import sample_chain
from ddpm.process.steps import plan_steps
from ddpm.process.weights import loss_weights

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None,
    reason="diffusers, an extra for benchmarks, is not installed",
)

PREDICTIONS = {"epsilon": "epsilon", "x_start": "sample", "v": "v_prediction"}
TOTAL = 100
SHAPE = (3, 8, 8)


def network(x_t: Tensor, t: Tensor) -> Tensor:
    """Predict something that depends on image and timestep, and is no linear function of either."""
    return 0.3 * torch.tanh(x_t) + 0.1 * torch.sin(t.float()).view(-1, 1, 1, 1)


def diffusion_of(prediction: Any, betas: Any = "linear", **fields: Any) -> GaussianDiffusion:
    """Return a diffusion of a hundred timesteps."""
    config = DiffusionConfig(num_timesteps=TOTAL, betas=betas, prediction=prediction, **fields)
    return GaussianDiffusion(config)


def theirs(name: str, diffusion: GaussianDiffusion, **fields: Any) -> Any:
    """Return one of diffusers' schedulers over the same betas, which clips nothing."""
    import diffusers

    prediction = PREDICTIONS[diffusion.config.prediction]
    betas = diffusion.schedule.betas.numpy()
    return getattr(diffusers, name)(
        num_train_timesteps=TOTAL, trained_betas=betas, prediction_type=prediction, **fields
    )


def end_of_chain(diffusion: GaussianDiffusion, config: SamplingConfig) -> tuple[Tensor, Tensor]:
    """Return x_T and x_0 of our chain."""
    states = list(sample_chain(network, diffusion, config, torch.arange(4), SHAPE))
    return states[0].x, states[-1].x


def their_end(scheduler: Any, x: Tensor) -> Tensor:
    """Return x_0 of diffusers' chain from the same x_T."""
    for t in scheduler.timesteps:
        output = network(x, torch.full((len(x),), int(t)))
        x = scheduler.step(output, t, x).prev_sample
    return x


@pytest.mark.parametrize("betas", ["linear", "cosine", "scaled_linear", "sigmoid"])
def test_betas_that_end_in_pure_noise_are_the_same(betas: str) -> None:
    """Lin et al. 2023, algorithm 1; its last alphas_cumprod is 0."""
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    plain = diffusion_of("v", betas).schedule.betas
    ours = diffusion_of("v", betas, rescale_zero_snr=True).schedule.betas
    torch.testing.assert_close(ours, rescale_zero_terminal_snr(plain), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_reverse_step_has_the_same_mean_and_noise(
    monkeypatch: pytest.MonkeyPatch, prediction: str, variance: Any
) -> None:
    """Ho et al. 2020, eq. 6 and 7, from each of the predictions."""
    from diffusers.schedulers import scheduling_ddpm

    diffusion = diffusion_of(prediction, variance=variance)
    scheduler = theirs("DDPMScheduler", diffusion, variance_type=variance, clip_sample=False)
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    for t in (1, 40, TOTAL - 1):
        at = torch.full((2,), t)
        output = network(x, at)
        found = {}
        for noise in (0.0, 1.0):
            monkeypatch.setattr(
                scheduling_ddpm,
                "randn_tensor",
                lambda shape, noise=noise, **_: torch.full(shape, noise),
            )
            found[noise] = scheduler.step(output, t, x).prev_sample
        ours = diffusion.p_mean_variance(output, x, at, clip_denoised=False)
        torch.testing.assert_close(ours.mean, found[0.0], rtol=1e-4, atol=1e-4)
        scale = ours.variance.sqrt().expand_as(x)
        torch.testing.assert_close(scale, found[1.0] - found[0.0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("betas", ["linear", "cosine"])
def test_ddim_ends_where_theirs_does(prediction: str, betas: str) -> None:
    """Ten steps with the spacing of the released code."""
    diffusion = diffusion_of(prediction, betas)
    scheduler = theirs("DDIMScheduler", diffusion, clip_sample=False, timestep_spacing="leading")
    scheduler.set_timesteps(10)
    config = SamplingConfig(method="ddim", num_steps=10, spacing="ddim_linear", clip_denoised=False)
    x, ours = end_of_chain(diffusion, config)
    torch.testing.assert_close(ours, their_end(scheduler, x), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("betas", ["linear", "scaled_linear"])
def test_dpm_solver_ends_where_theirs_does(prediction: str, betas: str) -> None:
    """The multistep method of second order over the same timesteps."""
    diffusion = diffusion_of(prediction, betas)
    config = SamplingConfig(method="dpm++2m", num_steps=10, clip_denoised=False)
    scheduler = theirs(
        "DPMSolverMultistepScheduler",
        diffusion,
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(timesteps=[step.timestep for step in plan_steps(config, diffusion)])
    x, ours = end_of_chain(diffusion, config)
    torch.testing.assert_close(ours, their_end(scheduler, x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_min_snr_weighs_as_their_training_does(prediction: str) -> None:
    """Of v the weight is min(SNR, gamma) / (SNR + 1): others had it wrong for a year."""
    from diffusers.training_utils import compute_snr

    diffusion = diffusion_of(prediction, loss="min_snr", min_snr_gamma=3.0)
    scheduler = theirs("DDPMScheduler", diffusion)
    snr = compute_snr(scheduler, torch.arange(TOTAL)).double()
    expected = snr.clamp(max=3.0) / (snr if prediction == "epsilon" else snr + 1.0)
    ours = loss_weights(diffusion.schedule, diffusion.config)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=0.0)
