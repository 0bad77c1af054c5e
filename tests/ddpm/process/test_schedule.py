"""The schedules against the published numbers and against plain loops in float64."""

import math

import numpy as np
import pytest
import torch

from ddpm.config import ConfigError, DiffusionConfig
from ddpm.process.schedule import NoiseSchedule, build_schedule, cosine_betas, linear_betas

LINEAR = NoiseSchedule(linear_betas(1000))
COSINE = NoiseSchedule(cosine_betas(1000))

PUBLISHED = [
    (LINEAR, "alphas_cumprod", 999, "4.035829765e-05"),
    (LINEAR, "sqrt_alphas_cumprod", 999, "6.35282e-03"),
    (LINEAR, "betas", 0, "1e-04"),
    (LINEAR, "betas", 500, "1.005996e-02"),
    (LINEAR, "betas", 999, "2e-02"),
    (LINEAR, "posterior_variance", 1, "5.453187661e-05"),
    (LINEAR, "posterior_variance", 999, "1.999998353e-02"),
    (LINEAR, "posterior_mean_coef1", 1, "5.452914995e-01"),
    (LINEAR, "posterior_mean_coef2", 1, "4.547084990e-01"),
    (LINEAR, "posterior_mean_coef1", 999, "1.283514872e-04"),
    (LINEAR, "posterior_mean_coef2", 999, "9.899486783e-01"),
    (COSINE, "alphas_cumprod", 999, "2.428766907e-09"),
    (COSINE, "betas", 0, "4.128422482e-05"),
    (COSINE, "betas", 500, "3.155691442e-03"),
    (COSINE, "betas", 999, "9.99e-01"),
]


@pytest.mark.parametrize(("schedule", "name", "t", "digits"), PUBLISHED)
def test_published_number_comes_out_to_the_digits_shown(
    schedule: NoiseSchedule, name: str, t: int, digits: str
) -> None:
    """A schedule that is slightly off trains a model whose likelihood nobody can compare."""
    decimals = len(digits.split("e")[0].partition(".")[2])
    value = float(getattr(schedule, name)[t])
    assert float(f"{value:.{decimals}e}") == float(digits)


def _naive_coefficients(betas: list[float]) -> dict[str, list[float]]:
    """Compute every coefficient with scalar loops, straight from the distributions."""
    names = ("cumprod", "prev", "variance", "coef1", "coef2")
    rows: dict[str, list[float]] = {name: [] for name in names}
    cumprod = 1.0
    for beta in betas:
        prev, cumprod = cumprod, cumprod * (1.0 - beta)
        # Bayes: the precision of x_{t-1} is that of the prior q(x_{t-1}|x_0) plus that which
        # x_t = sqrt(1 - beta) x_{t-1} + noise brings.
        prior_precision = math.inf if prev == 1.0 else 1.0 / (1.0 - prev)
        variance = 0.0 if prev == 1.0 else 1.0 / (prior_precision + (1.0 - beta) / beta)
        rows["cumprod"].append(cumprod)
        rows["prev"].append(prev)
        rows["variance"].append(variance)
        rows["coef1"].append(1.0 if prev == 1.0 else variance * prior_precision * math.sqrt(prev))
        rows["coef2"].append(variance * math.sqrt(1.0 - beta) / beta)
    return rows


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("num_timesteps", [21, 100, 1000, 4000])
def test_coefficients_equal_bayes_rule_done_by_hand(kind: str, num_timesteps: int) -> None:
    """The posterior is where a DDPM's indices go wrong by one unnoticed."""
    betas = {"linear": linear_betas, "cosine": cosine_betas}[kind](num_timesteps)
    schedule = NoiseSchedule(betas)
    naive = _naive_coefficients(betas.tolist())
    for name, table in (
        ("cumprod", schedule.alphas_cumprod),
        ("prev", schedule.alphas_cumprod_prev),
        ("variance", schedule.posterior_variance),
        ("coef1", schedule.posterior_mean_coef1),
        ("coef2", schedule.posterior_mean_coef2),
    ):
        assert table.dtype == torch.float64
        np.testing.assert_allclose(table.numpy(), naive[name], rtol=1e-10, err_msg=name)


def test_cosine_schedule_follows_its_curve_until_it_is_clipped() -> None:
    """Its betas are defined through alphas_cumprod, which is easy to shift by one step."""
    t = np.arange(1, 900)
    curve = np.cos((t / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    start = np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(COSINE.alphas_cumprod.numpy()[: t[-1]], curve / start, rtol=1e-10)


def test_linear_schedule_destroys_as_much_at_any_length() -> None:
    """Other lengths scale the betas by 1000/T, so x_T holds about as little of x_0."""
    for num_timesteps in (250, 2000, 4000):
        last = float(NoiseSchedule(linear_betas(num_timesteps)).alphas_cumprod[-1])
        assert 3e-5 < last < 5e-5


@pytest.mark.parametrize("num_timesteps", [-1, 0, 1, 20])
def test_linear_schedule_below_21_steps_is_refused(num_timesteps: int) -> None:
    """Its last beta would reach 1 and the logarithm of alpha would not exist."""
    with pytest.raises(ConfigError, match=r"num_timesteps must be at least 21"):
        linear_betas(num_timesteps)


def test_21_steps_are_enough_for_the_linear_schedule() -> None:
    """The limit is where beta reaches 1, and not above it."""
    assert float(linear_betas(21)[-1]) == pytest.approx(0.02 * 1000 / 21)


def test_cosine_schedule_below_1_step_is_refused() -> None:
    """One step is the clipped beta, which is what models that draw at once go by; none is none."""
    assert cosine_betas(1).tolist() == [0.999]
    with pytest.raises(ConfigError, match=r"num_timesteps must be at least 1"):
        cosine_betas(0)
    with pytest.raises(ConfigError, match=r"num_timesteps must be at least 2"):
        DiffusionConfig(
            num_timesteps=1, betas="cosine"
        )  # only x_start can be told from noise alone


@pytest.mark.parametrize("bad", [[0.1, 1.0], [0.0, 0.1], [0.1, math.nan], []])
def test_betas_outside_0_to_1_are_refused(bad: list[float]) -> None:
    """A schedule that someone brings along must not turn into NaNs in the middle of a run."""
    with pytest.raises(ValueError, match="beta"):
        NoiseSchedule(torch.tensor(bad, dtype=torch.float64))


def test_float32_betas_are_refused() -> None:
    """Computed in float32 the derived coefficients would be off by up to 2e-3."""
    with pytest.raises(ValueError, match="float64"):
        NoiseSchedule(linear_betas(100).to(torch.float32))


@pytest.mark.parametrize("schedule", [LINEAR, COSINE])
def test_respaced_chain_keeps_the_marginals(schedule: NoiseSchedule) -> None:
    """The network has learned q(x_t|x_0) at its own t; a rescaled schedule would change that."""
    timesteps = [0, 3, 50, 400, 999]
    short = schedule.respaced(timesteps)
    np.testing.assert_allclose(
        short.alphas_cumprod.numpy(), schedule.alphas_cumprod.numpy()[timesteps], rtol=1e-8
    )
    hops = [np.prod(1.0 - schedule.betas.numpy()[a + 1 : b + 1]) for a, b in
            zip([-1, *timesteps[:-1]], timesteps, strict=True)]  # fmt: skip
    np.testing.assert_allclose(short.alphas.numpy(), hops, rtol=1e-7)


def test_respacing_to_every_step_changes_no_bit() -> None:
    """A full chain must not depend on which path built it."""
    assert torch.equal(LINEAR.respaced(range(1000)).betas, LINEAR.betas)


@pytest.mark.parametrize("timesteps", [[], [0, 0], [5, 3], [-1, 3], [0, 1000]])
def test_impossible_respacing_is_refused(timesteps: list[int]) -> None:
    """A repeated timestep would have beta 0 and divide by it."""
    with pytest.raises(ValueError, match="increase strictly"):
        LINEAR.respaced(timesteps)


def test_first_log_variance_is_that_of_the_second_step() -> None:
    """The posterior variance is 0 at t = 0, and the decoder needs a logarithm."""
    expected = math.log(5.453187661e-05)
    assert float(LINEAR.posterior_log_variance_clipped[0]) == pytest.approx(expected, rel=1e-9)
    assert float(LINEAR.fixed_large_log_variance[0]) == pytest.approx(expected, rel=1e-9)
    assert float(LINEAR.fixed_large_log_variance[7]) == pytest.approx(
        math.log(float(LINEAR.betas[7]))
    )


def test_schedule_is_built_by_its_name() -> None:
    """The configuration's words must reach the right formula."""
    config = DiffusionConfig(num_timesteps=50, betas="cosine")
    assert torch.equal(build_schedule(config).betas, cosine_betas(50))
    config = DiffusionConfig(num_timesteps=50, betas="linear")
    assert torch.equal(build_schedule(config).betas, linear_betas(50))


def test_chain_of_one_step_has_finite_coefficients() -> None:
    """Sampling in a single step is allowed, and its variance table has no second entry."""
    short = LINEAR.respaced([999])
    assert float(short.posterior_mean_coef1[0]) == 1.0
    assert math.isfinite(float(short.posterior_log_variance_clipped[0]))
