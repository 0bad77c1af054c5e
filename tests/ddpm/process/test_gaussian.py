"""The forward process, the posterior, the conversions and the losses, against float64 forms."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from ddpm.config import DiffusionConfig
from ddpm.process.gaussian import GaussianDiffusion

Array = npt.NDArray[np.float64]
PREDICTIONS = ["epsilon", "x_start", "mean"]
EVERY_T = torch.tensor([0, 1, 2, 9, 99, 499, 998, 999])


def _diffusion(**settings: Any) -> GaussianDiffusion:
    return GaussianDiffusion(DiffusionConfig(**settings))


def _images(seed: int, batch_size: int = len(EVERY_T)) -> Tensor:
    return torch.randn(batch_size, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def _column(values: Array) -> Array:
    return values.reshape(-1, 1, 1, 1)


def _linear(t: Tensor) -> tuple[Array, Array, Array]:
    """Return beta_t, alphas_cumprod_t and alphas_cumprod_{t-1}, from numpy alone."""
    betas = np.linspace(1e-4, 0.02, 1000)
    cumprod = np.concatenate([[1.0], np.exp(np.cumsum(np.log1p(-betas)))])
    index = t.numpy()
    return _column(betas[index]), _column(cumprod[index + 1]), _column(cumprod[index])


def _q_step(diffusion: GaussianDiffusion, x_prev: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Draw from q(x_t | x_{t-1}): the noise of the single step t. Ho et al. 2020, eq. 2."""
    betas = diffusion.schedule.betas[t].view(-1, 1, 1, 1)
    return ((1.0 - betas).sqrt() * x_prev + betas.sqrt() * noise).float()


def test_composed_single_steps_have_the_moments_of_the_closed_form() -> None:
    """The one-step kernel and the jump to t must be one process, or training learns another one."""
    diffusion = _diffusion(num_timesteps=100)
    generator = torch.Generator().manual_seed(0)
    x_start, num_draws = 0.8, 200_000
    x = torch.full((num_draws, 1, 1, 1), x_start)
    for step in range(100):
        t = torch.full((num_draws,), step)
        x = _q_step(diffusion, x, t, torch.randn(x.shape, generator=generator))
        if step in (0, 30, 99):
            betas = np.linspace(1e-3, 0.2, 100)[: step + 1]
            kept = float(np.prod(1.0 - betas))
            std = math.sqrt(1.0 - kept)
            tolerance = 5.0 * std / math.sqrt(num_draws)
            assert float(x.mean()) == pytest.approx(math.sqrt(kept) * x_start, abs=tolerance)
            assert float(x.std()) == pytest.approx(std, rel=0.01)
            jump = diffusion.q_sample(
                torch.full_like(x, x_start), t, torch.randn(x.shape, generator=generator)
            )
            assert float(jump.mean()) == pytest.approx(float(x.mean()), abs=2.0 * tolerance)
            assert float(jump.std()) == pytest.approx(float(x.std()), rel=0.01)


def test_single_steps_multiply_to_the_closed_form_exactly() -> None:
    """Without noise, and with noise alone, the composition is arithmetic and not statistics."""
    diffusion = _diffusion(num_timesteps=50)
    zero, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    signal, variance = one, 0.0
    for step in range(50):
        t = torch.tensor([step])
        signal = _q_step(diffusion, signal, t, zero)
        gain = float(_q_step(diffusion, one, t, zero))
        spread = float(_q_step(diffusion, zero, t, one))
        variance = gain**2 * variance + spread**2
        assert float(signal) == pytest.approx(float(diffusion.q_sample(one, t, zero)), rel=1e-5)
        jump = float(diffusion.q_sample(zero, t, one))
        assert variance == pytest.approx(jump**2, rel=1e-5)


def test_end_of_the_forward_process_forgets_the_image() -> None:
    """Sampling starts from N(0, I), which is right only if q(x_T|x_0) is nearly that."""
    diffusion = _diffusion()
    t, one, zero = torch.tensor([999]), torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    assert float(diffusion.q_sample(one, t, zero)) == pytest.approx(0.00635282, abs=5e-9)
    assert float(diffusion.q_sample(zero, t, one)) ** 2 == pytest.approx(0.99995964, abs=1e-7)


def test_q_sample_matches_float64() -> None:
    """Coefficients cast once from float64 keep float32's full accuracy."""
    diffusion = _diffusion()
    x_start, noise = _images(1), _images(2)
    _, cumprod, _ = _linear(EVERY_T)
    expected = np.sqrt(cumprod) * x_start.numpy() + np.sqrt(1.0 - cumprod) * noise.numpy()
    x_t = diffusion.q_sample(x_start, EVERY_T, noise)
    np.testing.assert_allclose(x_t.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_posterior_is_bayes_rule_on_the_two_gaussians() -> None:
    """Reverse steps and the bound both stand on this mean and this variance."""
    diffusion = _diffusion()
    t = EVERY_T[1:]
    x_start, x_t = _images(3, len(t)), _images(4, len(t))
    beta, _, prev = _linear(t)
    precision = 1.0 / (1.0 - prev) + (1.0 - beta) / beta
    pull = np.sqrt(prev) * x_start.numpy() / (1.0 - prev)
    mean = (pull + np.sqrt(1.0 - beta) * x_t.numpy() / beta) / precision
    posterior = diffusion.q_posterior_mean_variance(x_start, x_t, t)
    np.testing.assert_allclose(posterior.mean.numpy(), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(posterior.variance.numpy(), 1.0 / precision, rtol=1e-6)
    np.testing.assert_allclose(posterior.log_variance.numpy(), -np.log(precision), rtol=1e-6)


def test_posterior_of_the_first_step_is_the_image_itself() -> None:
    """x_{-1} is x_0: its variance is 0, and its mean doesn't look at x_t."""
    x_start, x_t = _images(5, 1), _images(6, 1)
    posterior = _diffusion().q_posterior_mean_variance(x_start, x_t, torch.tensor([0]))
    assert float(posterior.variance) == 0.0
    torch.testing.assert_close(posterior.mean, x_start)


def test_conversions_agree_on_one_noised_image() -> None:
    """ε, x_0 and the mean are three names of one prediction; each path must lead to the others."""
    diffusion = _diffusion()
    x_start, noise = _images(7), _images(8)
    x_t = diffusion.q_sample(x_start, EVERY_T, noise)
    mean = diffusion.q_posterior_mean_variance(x_start, x_t, EVERY_T).mean
    # sqrt(1/alphas_cumprod) is 157 at t = 999 and multiplies float32's rounding
    close: dict[str, Any] = {"rtol": 0.0, "atol": 2e-4}
    to_xstart = diffusion.predict_xstart_from_eps(x_t, EVERY_T, noise)
    torch.testing.assert_close(to_xstart, x_start, **close)
    early = slice(0, 4)  # later, dividing by posterior_mean_coef1 loses digits
    from_mean = diffusion.predict_xstart_from_mean(x_t, EVERY_T, mean)
    torch.testing.assert_close(from_mean[early], x_start[early], **close)
    to_eps = diffusion.predict_eps_from_xstart(x_t, EVERY_T, x_start)
    torch.testing.assert_close(to_eps, noise, rtol=0.0, atol=2e-3)
    for to_mean in (
        diffusion.predict_mean_from_eps(x_t, EVERY_T, noise),
        diffusion.predict_mean_from_xstart(x_t, EVERY_T, x_start),
    ):
        torch.testing.assert_close(to_mean, mean, rtol=0.0, atol=1e-5)


def _convert(diffusion: GaussianDiffusion, eps: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """Say in the diffusion's own terms what a network that predicts eps has said."""
    if diffusion.config.prediction == "epsilon":
        return eps
    if diffusion.config.prediction == "x_start":
        return diffusion.predict_xstart_from_eps(x_t, t, eps)
    return diffusion.predict_mean_from_eps(x_t, t, eps)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_reverse_step_is_one_distribution_whatever_is_predicted(
    prediction: str, variance: str
) -> None:
    """A sampler must not care how the network was trained to speak."""
    diffusion = _diffusion(prediction=prediction, variance=variance)
    eps, x_t = _images(9), _images(10)
    beta, cumprod, prev = _linear(EVERY_T)
    step = diffusion.p_mean_variance(
        _convert(diffusion, eps, x_t, EVERY_T), x_t, EVERY_T, clip_denoised=False
    )
    mean = (x_t.numpy() - beta / np.sqrt(1.0 - cumprod) * eps.numpy()) / np.sqrt(1.0 - beta)
    np.testing.assert_allclose(step.mean.numpy(), mean, atol=2e-5)
    expected = beta if variance == "fixed_large" else beta * (1.0 - prev) / (1.0 - cumprod)
    np.testing.assert_allclose(step.variance.numpy()[1:], expected[1:], rtol=1e-5)
    np.testing.assert_allclose(step.log_variance.numpy()[1:], np.log(expected[1:]), rtol=1e-5)
    assert float(step.variance[0]) == pytest.approx(5.453187661e-05, rel=1e-5)


def test_clipping_bounds_the_predicted_image_and_moves_the_mean() -> None:
    """An unclipped x_0 at large t is off by hundreds and would throw the chain away."""
    diffusion = _diffusion()
    x_t, eps = _images(11), _images(12)
    step = diffusion.p_mean_variance(eps, x_t, EVERY_T, clip_denoised=True)
    assert float(step.pred_xstart.abs().max()) <= 1.0
    torch.testing.assert_close(
        step.mean, diffusion.q_posterior_mean_variance(step.pred_xstart, x_t, EVERY_T).mean
    )


def _mean_matching(predicted: Array, true: Array, variance: Array) -> Array:
    """KL of two Gaussians with equal variance: ||mean - mean||^2 / (2 sigma^2), per pixel."""
    divergence: Array = np.mean((predicted - true) ** 2 / (2.0 * variance), axis=(1, 2, 3))
    return divergence


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_mean_matching_divergence_is_the_weighted_loss(prediction: str, variance: str) -> None:
    """Ho et al.'s step from eq. 8 to eq. 12, for one network output said in three ways."""
    diffusion = _diffusion(prediction=prediction, variance=variance, loss="weighted")
    t = EVERY_T[1:]
    x_start, noise, eps = (_images(seed, len(t)) for seed in (13, 14, 15))
    beta, cumprod, prev = _linear(t)
    x_t = np.sqrt(cumprod) * x_start.numpy() + np.sqrt(1.0 - cumprod) * noise.numpy()

    def mean_of(noise: Array) -> Array:
        mean: Array = (x_t - beta / np.sqrt(1.0 - cumprod) * noise) / np.sqrt(1.0 - beta)
        return mean

    sigma2 = beta if variance == "fixed_large" else beta * (1.0 - prev) / (1.0 - cumprod)
    expected = _mean_matching(mean_of(eps.numpy()), mean_of(noise.numpy()), sigma2)
    x_t32 = torch.from_numpy(x_t.astype(np.float32))
    output = _convert(diffusion, eps, x_t32, t)
    loss = diffusion.training_loss(output, x_start, x_t32, t, noise)
    assert loss.shape == t.shape
    np.testing.assert_allclose(loss.numpy(), expected, rtol=2e-3)


@pytest.mark.parametrize(
    ("t", "weight"),
    [(0, 0.50005), (1, 0.272692), (9, 0.073717), (99, 0.010081), (499, 0.005503), (999, 0.010204)],
)
def test_published_weight_of_the_bound(t: int, weight: float) -> None:
    """The weighted loss for a unit error is the weight itself."""
    diffusion = _diffusion(loss="weighted", variance="fixed_large")
    zero, one = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    loss = diffusion.training_loss(one, zero, zero, torch.tensor([t]), zero)
    assert float(loss) == pytest.approx(weight, abs=5e-7 if t else 5e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_weighted_loss_is_finite_and_learns_at_every_t(prediction: str, variance: str) -> None:
    """The posterior variance is 0 at t = 0: one infinity there would end a run as diverged."""
    diffusion = _diffusion(
        num_timesteps=30, prediction=prediction, variance=variance, loss="weighted"
    )
    t = torch.arange(30)
    x_start, noise, output = (_images(seed, 30) for seed in (16, 17, 18))
    x_t = diffusion.q_sample(x_start, t, noise)
    loss = diffusion.training_loss(output, x_start, x_t, t, noise)
    assert bool(loss.isfinite().all())
    assert float(loss.min()) > 0.0


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_simple_loss_is_the_plain_squared_error_of_the_target(prediction: str) -> None:
    """L_simple has no weight, and a perfect network has no loss."""
    diffusion = _diffusion(prediction=prediction, loss="simple")
    x_start, noise = _images(19), _images(20)
    x_t = diffusion.q_sample(x_start, EVERY_T, noise)
    target = {
        "epsilon": noise,
        "x_start": x_start,
        "mean": diffusion.q_posterior_mean_variance(x_start, x_t, EVERY_T).mean,
    }[prediction]
    loss = diffusion.training_loss(target + 0.5, x_start, x_t, EVERY_T, noise)
    np.testing.assert_allclose(loss.numpy(), 0.25, rtol=1e-5)
    assert float(diffusion.training_loss(target, x_start, x_t, EVERY_T, noise).sum()) == 0.0


def test_loss_of_a_half_precision_output_is_taken_in_float32() -> None:
    """Under autocast the network answers in bfloat16, whose squares would have 8 bits."""
    diffusion = _diffusion()
    x_start, noise = _images(21), _images(22)
    output = _images(23).to(torch.bfloat16)
    loss = diffusion.training_loss(output, x_start, x_start, EVERY_T, noise)
    assert loss.dtype == torch.float32
    expected = ((output.double() - noise.double()) ** 2).mean(dim=(1, 2, 3))
    np.testing.assert_allclose(loss.numpy(), expected.numpy(), rtol=1e-5)


def test_coefficients_move_with_the_module_and_stay_out_of_checkpoints() -> None:
    """They must follow `.to(device)`, and a checkpoint must not carry what the config says."""
    diffusion = _diffusion().to("meta")
    assert diffusion.sqrt_alphas_cumprod.device.type == "meta"
    assert diffusion.state_dict() == {}
    assert all(table.dtype == torch.float32 for table in _diffusion().buffers())
