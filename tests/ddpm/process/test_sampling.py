"""The samplers, on data whose best possible network is known in closed form."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.config import ConfigError, DiffusionConfig, SamplingConfig
from ddpm.process.gaussian import Denoiser, GaussianDiffusion
from ddpm.process.noise import sample_noise
from ddpm.process.sampling import (
    ChainState,
    draw,
    initial_noise,
    sample_chain,
    to_uint8,
)
from ddpm.process.spacing import sampling_timesteps
from ddpm.process.steps import settled, step_coefficients

SHAPE = (1, 8, 8)


def _diffusion(**settings: Any) -> GaussianDiffusion:
    return GaussianDiffusion(DiffusionConfig(**{"num_timesteps": 100, **settings}))


def _sampling(**settings: Any) -> SamplingConfig:
    return SamplingConfig(**{"num_steps": 100, "clip_denoised": False, **settings})


def gaussian_denoiser(
    diffusion: GaussianDiffusion, mean: float, std: float, heard: list[int] | None = None
) -> Denoiser:
    """Return the best possible network for pixels that are N(mean, std^2), each on its own.

    x_t is then N(a mean, a^2 std^2 + 1 - a^2) with a^2 = alphas_cumprod, and E[x_0 | x_t] is
    linear in x_t.
    """
    cumprod = np.cumprod(1.0 - diffusion.schedule.betas.numpy())

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        step = int(t[0])
        if heard is not None:
            heard.append(step)
        signal, noise_variance = np.sqrt(cumprod[step]), 1.0 - cumprod[step]
        surprise = x_t.double() - signal * mean
        total = signal**2 * std**2 + noise_variance
        x_start = mean + signal * std**2 / total * surprise
        eps = (x_t.double() - signal * x_start) / np.sqrt(noise_variance)
        answer = {
            "epsilon": eps,
            "x_start": x_start,
            "mean": diffusion.predict_mean_from_xstart(x_t, t, x_start.float()),
            "v": signal * eps - np.sqrt(noise_variance) * x_start,
        }
        asked: Tensor = answer[diffusion.config.prediction]
        return asked.float()

    return denoise


def _exact_moments(
    diffusion: GaussianDiffusion, config: SamplingConfig, mean: float, std: float
) -> tuple[float, float]:
    """Follow mean and variance of x through a chain with the best network, in float64.

    Each step is Gaussian, so two numbers say everything; what they should be is the paper's own
    form of the step, written with eps and not with the weights that the sampler uses.
    """
    timesteps = sampling_timesteps(config, diffusion.num_timesteps)
    full = np.cumprod(1.0 - diffusion.schedule.betas.numpy())
    here, there = full[timesteps], np.concatenate([[1.0], full[timesteps][:-1]])
    m, v = 0.0, 1.0
    for cumprod, prev in reversed(list(zip(here, there, strict=True))):
        total = cumprod * std**2 + 1.0 - cumprod
        gain = np.sqrt(cumprod) * std**2 / total  # E[x_0|x_t] = offset + gain x_t
        offset = mean - gain * np.sqrt(cumprod) * mean
        alpha = cumprod / prev
        small = (1.0 - prev) / (1.0 - cumprod) * (1.0 - alpha)
        eps_gain = (1.0 - np.sqrt(cumprod) * gain) / np.sqrt(1.0 - cumprod)
        eps_offset = -np.sqrt(cumprod) * offset / np.sqrt(1.0 - cumprod)
        if config.method == "ddim":
            sigma2 = config.eta**2 * small
            direction = np.sqrt(1.0 - prev - sigma2)
            a = np.sqrt(prev) * gain + direction * eps_gain
            b = np.sqrt(prev) * offset + direction * eps_offset
        else:
            sigma2 = small if config.variance == "fixed_small" else 1.0 - alpha
            scale = (1.0 - alpha) / np.sqrt(1.0 - cumprod)
            a = (1.0 - scale * eps_gain) / np.sqrt(alpha)
            b = -scale * eps_offset / np.sqrt(alpha)
        noise = 0.0 if prev == 1.0 else sigma2
        m, v = a * m + b, a**2 * v + noise
    return float(m), float(np.sqrt(v))


CHAINS = [
    {"variance": "fixed_large"},
    {"variance": "fixed_small"},
    {"variance": "fixed_large", "num_steps": 20},
    {"variance": "fixed_small", "num_steps": 20, "spacing": "quadratic"},
    {"method": "ddim"},
    {"method": "ddim", "num_steps": 20},
    {"method": "ddim", "num_steps": 20, "eta": 0.5, "spacing": "quadratic"},
    {"method": "ddim", "num_steps": 50, "eta": 1.0},
]


@pytest.mark.parametrize("settings", CHAINS)
def test_chain_ends_with_the_moments_that_theory_predicts(settings: dict[str, Any]) -> None:
    """A wrong coefficient in any step shows here, for each sampler, variance and spacing."""
    diffusion, config = _diffusion(), _sampling(**settings)
    x = draw(gaussian_denoiser(diffusion, 0.3, 0.4), diffusion, config, torch.arange(512), SHAPE)
    mean, std = _exact_moments(diffusion, config, 0.3, 0.4)
    num_values = x.numel()
    assert float(x.mean()) == pytest.approx(mean, abs=5.0 * std / num_values**0.5)
    assert float(x.std()) == pytest.approx(std, rel=5.0 / (2.0 * num_values) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"variance": "fixed_small"}, {"variance": "fixed_large"}, {"method": "ddim"}]
)
def test_full_chain_draws_the_data_distribution(settings: dict[str, Any]) -> None:
    """With the best network and T = 1000, what comes out is the data: the point of it all."""
    diffusion = _diffusion(num_timesteps=1000)
    config = _sampling(num_steps=1000, **settings)
    x = draw(gaussian_denoiser(diffusion, 0.3, 0.4), diffusion, config, torch.arange(128), SHAPE)
    assert float(x.mean()) == pytest.approx(0.3, abs=0.02)
    assert float(x.std()) == pytest.approx(0.4, rel=0.03)


METHODS = ["ddpm", "ddim", "dpm++2m", "dpm++2m_sde", "heun"]


@pytest.mark.parametrize("method", METHODS)
def test_what_the_network_predicts_does_not_change_the_images(method: str) -> None:
    """ε, x_0, v and the mean are one network in four languages, on a respaced chain too."""
    images = []
    for prediction in ("epsilon", "x_start", "mean", "v"):
        diffusion = _diffusion(prediction=prediction)
        config = _sampling(method=method, num_steps=25, clip_denoised=True)
        denoiser = gaussian_denoiser(diffusion, -0.2, 0.5)
        images.append(draw(denoiser, diffusion, config, torch.arange(4), SHAPE))
    torch.testing.assert_close(images[1], images[0], rtol=0.0, atol=1e-4)
    torch.testing.assert_close(images[2], images[0], rtol=0.0, atol=2e-2)
    torch.testing.assert_close(images[3], images[0], rtol=0.0, atol=1e-4)


def test_ddim_with_eta_1_is_ddpm_with_the_small_variance() -> None:
    """Song et al. 2020, section 4.1: two derivations meet, so a slip in either shows."""
    diffusion = _diffusion(num_timesteps=1000)
    ddim = step_coefficients(_sampling(method="ddim", eta=1.0, num_steps=37), diffusion)
    ddpm = step_coefficients(_sampling(variance="fixed_small", num_steps=37), diffusion)
    np.testing.assert_allclose(np.array(ddim), np.array(ddpm), rtol=1e-8, atol=1e-9)


def test_ddim_without_noise_is_a_function_of_x_t_alone() -> None:
    """η = 0 is what makes interpolation and inversion possible: only x_T may be random."""
    diffusion = _diffusion()
    denoiser = gaussian_denoiser(diffusion, 0.0, 0.5)
    start = ChainState(initial_noise(0, torch.arange(2), SHAPE), 0)
    ends = []
    for seed in (0, 1):
        config = _sampling(method="ddim", num_steps=10, seed=seed)
        chain = sample_chain(denoiser, diffusion, config, torch.arange(2), SHAPE, start=start)
        ends.append(list(chain)[-1].x)
    assert torch.equal(ends[0], ends[1])


@pytest.mark.parametrize("num_steps", [1, 2, 7, 99, 100])
@pytest.mark.parametrize("spacing", ["linear", "quadratic"])
def test_network_hears_the_timesteps_it_was_trained_on(num_steps: int, spacing: str) -> None:
    """A respaced chain that counted 0..S-1 would ask about noise levels that are not there."""
    diffusion, heard = _diffusion(), list[int]()
    config = _sampling(num_steps=num_steps, spacing=spacing)
    draw(gaussian_denoiser(diffusion, 0.0, 1.0, heard), diffusion, config, torch.arange(1), SHAPE)
    assert heard == sampling_timesteps(config, 100)[::-1]


@pytest.mark.parametrize("spacing", ["linear", "quadratic"])
@pytest.mark.parametrize("num_timesteps", [2, 21, 250])
def test_spacings_visit_distinct_timesteps_from_0_to_the_last(
    spacing: str, num_timesteps: int
) -> None:
    """Quadratic spacing repeats timesteps near 0 unless it is kept from it."""
    for num_steps in range(2, num_timesteps + 1):
        config = _sampling(num_steps=num_steps, spacing=spacing)
        visited = sampling_timesteps(config, num_timesteps)
        assert len(visited) == num_steps
        assert visited[0] == 0
        assert visited[-1] == num_timesteps - 1
        assert all(a < b for a, b in pairwise(visited))


def test_spacings_have_their_shape() -> None:
    """Quadratic spacing spends its steps where the image takes form."""
    linear = sampling_timesteps(_sampling(num_steps=10), 1000)
    assert linear == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]
    quadratic = sampling_timesteps(_sampling(num_steps=10, spacing="quadratic"), 1000)
    assert quadratic == [int(999 * (i / 9) ** 2 + 1e-9) for i in range(10)]
    assert sampling_timesteps(_sampling(num_steps=1), 1000) == [999]


def test_full_chain_uses_the_schedule_as_it_is() -> None:
    """Algorithm 2 with all T steps must be the textbook's, β and all."""
    diffusion = _diffusion(num_timesteps=1000)
    steps = step_coefficients(_sampling(num_steps=1000, variance="fixed_large"), diffusion)
    assert [step.timestep for step in steps] == list(range(999, -1, -1))
    assert steps[0].noise_scale == pytest.approx(0.02**0.5, rel=1e-12)
    assert steps[0].xstart_weight == pytest.approx(1.283514872e-04, rel=1e-9)
    assert steps[0].x_weight == pytest.approx(0.9899486783, rel=1e-9)
    assert steps[-1] == pytest.approx((0, 1.0, 0.0, 0.0), rel=1e-12)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_variance_of_the_model_is_taken_for_its_whole_chain(variance: Any) -> None:
    """That is the chain that the model's own variance is for."""
    own = step_coefficients(_sampling(), _diffusion(variance=variance))
    assert own == step_coefficients(_sampling(variance=variance), _diffusion())


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_a_shortened_chain_takes_the_small_variance_unless_another_is_named(variance: Any) -> None:
    """With fixed_large 20 steps draw digits whose KID is 18 times that of fixed_small."""
    diffusion, few = _diffusion(variance=variance), _sampling(num_steps=99)
    assert settled(few, diffusion.config).variance == "fixed_small"
    small = step_coefficients(_sampling(num_steps=99, variance="fixed_small"), diffusion)
    large = step_coefficients(_sampling(num_steps=99, variance="fixed_large"), diffusion)
    assert step_coefficients(few, diffusion) == small != large


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_a_kept_epsilon_is_the_networks_own(eta: float) -> None:
    """As in diffusers: x_0 is clipped, and the noise beside it stays what the network said."""
    diffusion = _diffusion()
    config = _sampling(
        method="ddim", num_steps=10, eta=eta, clip_denoised=True, keep_epsilon=True, seed=1
    )
    wild: Denoiser = lambda x_t, t: 0.3 * x_t + 0.2  # noqa: E731
    states = list(sample_chain(wild, diffusion, config, torch.arange(2), SHAPE))
    steps = step_coefficients(config, diffusion)
    cumprod = diffusion.schedule.alphas_cumprod.numpy()
    visited = [step.timestep for step in steps]
    for before, after, step in zip(states, states[1:], steps, strict=False):
        place = visited.index(step.timestep)
        here = cumprod[step.timestep]
        prev = cumprod[visited[place + 1]] if place + 1 < len(visited) else 1.0
        x = before.x.double().numpy()
        eps = 0.3 * x + 0.2
        x_0 = np.clip((x - np.sqrt(1 - here) * eps) / np.sqrt(here), -1.0, 1.0)
        sigma = eta * np.sqrt((1 - prev) / (1 - here) * (1 - here / prev))
        wanted = np.sqrt(prev) * x_0 + np.sqrt(1 - prev - sigma**2) * eps
        if sigma > 0:
            noise = sample_noise(1, torch.arange(2), step.timestep, SHAPE)
            wanted = wanted + sigma * noise.double().numpy()
        np.testing.assert_allclose(after.x.numpy(), wanted, rtol=1e-4, atol=1e-4)


def test_more_steps_than_the_model_has_are_refused() -> None:
    """It is an input error that names the field, before any network is loaded."""
    with pytest.raises(ConfigError, match="num_steps must be at most 100"):
        sampling_timesteps(_sampling(num_steps=101), 100)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stop", [0, 1, 13, 24, 25])
def test_stopped_chain_goes_on_to_the_same_bits(method: str, stop: int) -> None:
    """A worker that is told to stop hands over x_t and a count, and nothing is drawn again."""
    diffusion = _diffusion()
    config = _sampling(method=method, num_steps=25, eta=0.7 if method == "ddim" else 0.0)
    denoiser, indices = gaussian_denoiser(diffusion, 0.1, 0.3), torch.tensor([4, 8, 15])
    whole = list(sample_chain(denoiser, diffusion, config, indices, SHAPE))
    assert [state.step_index for state in whole] == list(range(26))
    start = whole[stop]._replace(x=whole[stop].x.clone())
    rest = list(sample_chain(denoiser, diffusion, config, indices, SHAPE, start=start))
    assert [state.step_index for state in rest] == list(range(stop, 26))
    assert torch.equal(rest[-1].x, whole[-1].x)


@pytest.mark.parametrize("at_once", [1, 2 * 3 * 15, 10**9])
def test_noise_made_for_several_steps_is_that_of_each(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many steps' noise is made at once depends on the batch, which must not show."""
    diffusion, config = _diffusion(), _sampling(num_steps=8, seed=3)
    indices, steps = torch.tensor([7, 2]), step_coefficients(config, diffusion)
    monkeypatch.setattr("ddpm.process.sampling._NOISE_AT_ONCE", {"cpu": at_once})
    denoiser = gaussian_denoiser(diffusion, 0.1, 0.3)
    states = list(sample_chain(denoiser, diffusion, config, indices, (1, 3, 5)))
    for before, after, step in zip(states, states[1:], steps, strict=False):
        t = torch.full((2,), step.timestep)
        x_0 = diffusion.predict_xstart(denoiser(before.x, t), before.x, t)
        mean = step.xstart_weight * x_0 + step.x_weight * before.x
        noise = sample_noise(3, indices, step.timestep, (1, 3, 5))
        assert torch.equal(after.x, mean + step.noise_scale * noise)


def test_states_of_a_chain_are_not_overwritten() -> None:
    """A film strip keeps them; a step in place would make all its frames the last one."""
    diffusion, config = _diffusion(), _sampling(num_steps=5)
    denoiser = gaussian_denoiser(diffusion, 0.1, 0.3)
    states = list(sample_chain(denoiser, diffusion, config, torch.arange(2), SHAPE))
    for earlier, later in pairwise(states):
        assert not torch.equal(earlier.x, later.x)
    assert torch.equal(states[0].x, initial_noise(0, torch.arange(2), SHAPE))


@pytest.mark.parametrize("batches", [[[0, 1, 2, 3, 4]], [[4, 2], [0], [3, 1]], [[1, 0, 4, 3, 2]]])
def test_image_k_is_the_same_in_any_batch(batches: Sequence[Sequence[int]]) -> None:
    """The images are a function of (seed, k); how a fleet splits them must not show."""
    diffusion, config = _diffusion(), _sampling(num_steps=10, seed=11)
    denoiser = gaussian_denoiser(diffusion, 0.2, 0.4)
    alone = [draw(denoiser, diffusion, config, torch.tensor([k]), (1, 3, 5))[0] for k in range(5)]
    for batch in batches:
        drawn = draw(denoiser, diffusion, config, torch.tensor(batch), (1, 3, 5))
        for position, k in enumerate(batch):
            assert torch.equal(drawn[position], alone[k])


def test_other_seed_draws_other_images() -> None:
    """Two runs that ask for new images must get them."""
    diffusion = _diffusion()
    denoiser = gaussian_denoiser(diffusion, 0.2, 0.4)
    first, second = (
        draw(denoiser, diffusion, _sampling(num_steps=5, seed=seed), torch.arange(1), SHAPE)
        for seed in (0, 1)
    )
    assert not torch.allclose(first, second, atol=0.1)


def test_clipped_chain_stays_in_range_with_a_wild_network() -> None:
    """An untrained network must give bad images and not infinities."""
    diffusion = _diffusion()
    wild: Denoiser = lambda x_t, t: 50.0 * torch.ones_like(x_t)  # noqa: E731
    config = _sampling(clip_denoised=True, num_steps=50)
    x = draw(wild, diffusion, config, torch.arange(2), SHAPE)
    assert float(x.abs().max()) <= 1.0


def test_start_of_another_chain_is_refused() -> None:
    """Going on from another batch's x_t would draw wrong images without a sound."""
    diffusion, config = _diffusion(), _sampling(num_steps=5)
    denoiser = gaussian_denoiser(diffusion, 0.0, 1.0)
    for start in (
        ChainState(torch.zeros(2, *SHAPE), 6),
        ChainState(torch.zeros(2, *SHAPE), -1),
        ChainState(torch.zeros(3, *SHAPE), 1),
        ChainState(torch.zeros(2, 1, 4, 4), 1),
    ):
        chain = sample_chain(denoiser, diffusion, config, torch.arange(2), SHAPE, start=start)
        with pytest.raises(ValueError, match="can't go on"):
            next(chain)


def test_no_gradient_is_kept() -> None:
    """A thousand steps of saved activations would fill any memory."""
    diffusion, config = _diffusion(), _sampling(num_steps=3)
    weight = torch.ones(1, requires_grad=True)
    denoiser: Denoiser = lambda x_t, t: weight * x_t  # noqa: E731
    assert not draw(denoiser, diffusion, config, torch.arange(1), SHAPE).requires_grad


def test_bytes_and_images_are_inverse() -> None:
    """A set's hash is over these bytes, and a data set's bytes must come back unchanged."""
    values = torch.arange(256, dtype=torch.uint8)
    image = (values.float() / 127.5 - 1.0).reshape(1, 1, 16, 16).expand(2, 3, 16, 16)
    stored = to_uint8(image)
    assert stored.shape == (2, 16, 16, 3)
    assert stored.is_contiguous()
    assert torch.equal(stored[1, :, :, 2].flatten(), values)


def test_bytes_are_rounded_and_clipped() -> None:
    """Truncation would darken every image by half a step; wrapping would turn white black."""
    x = torch.tensor([-5.0, -1.0, -0.9965, 0.0, 0.5, 1.0, 1.01, 7.0]).reshape(1, 1, 2, 4)
    assert to_uint8(x).flatten().tolist() == [0, 0, 0, 128, 191, 255, 255, 255]


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("prediction", ["epsilon", "x_start", "mean", "v"])
@pytest.mark.parametrize("clip_denoised", [True, False])
def test_a_whole_chain_is_the_one_of_the_reverse_distribution(
    prediction: str, variance: str, clip_denoised: bool
) -> None:
    """What runs is a few weights a step; the textbook's p(x_{t-1} | x_t) says what they must do."""
    diffusion = _diffusion(prediction=prediction, variance=variance)
    config, indices = _sampling(variance=variance, clip_denoised=clip_denoised), torch.arange(4)
    denoiser = gaussian_denoiser(diffusion, 0.6, 0.8)  # so wide that x_0 is clipped now and then
    x = initial_noise(config.seed, indices, SHAPE)
    for timestep in reversed(range(diffusion.num_timesteps)):
        t = torch.full((4,), timestep)
        step = diffusion.p_mean_variance(denoiser(x, t), x, t, clip_denoised=clip_denoised)
        noise = sample_noise(config.seed, indices, timestep, SHAPE) if timestep else 0.0
        x = step.mean + (0.5 * step.log_variance).exp() * noise
    torch.testing.assert_close(
        draw(denoiser, diffusion, config, indices, SHAPE), x, rtol=1e-3, atol=1e-3
    )
