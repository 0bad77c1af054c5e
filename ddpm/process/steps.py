"""The weights of every reverse step of a chain, for each method, in float64 before it begins.

With signal a = sqrt(alphas_cumprod) and noise s = sqrt(1 - alphas_cumprod) of a timestep, and a',
s' of the next, a step of first order is x' = (s' / s) x + (a' - a s' / s) x_0: DDIM without noise,
and Euler's step of the differential equation. The solvers of second order add a share of how x_0
has changed since the step before (DPM-Solver++), or will have changed at the next (Heun).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from ddpm.config import ConfigError, DiffusionConfig, SamplingConfig
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.schedule import NoiseSchedule
from ddpm.process.spacing import sampling_timesteps


class StepCoefficients(NamedTuple):
    """One reverse step: x_prev = xstart_weight x_0 + x_weight x_t + noise_scale z.

    Attributes:
        timestep: The model's own number of the step, in [0, T).
        xstart_weight: The weight of the predicted x_0.
        x_weight: The weight of x_t.
        noise_scale: sigma, the standard deviation of the fresh noise; 0 at the last step.
    """

    timestep: int
    xstart_weight: float
    x_weight: float
    noise_scale: float


class Corrector(NamedTuple):
    """The second half of a Heun step: x_prev += weight (x_0 predicted there - x_0).

    Attributes:
        timestep: Where the network is asked again.
        weight: Of the difference.
    """

    timestep: int
    weight: float


@dataclass(frozen=True)
class PlannedStep:
    """One reverse step with all that a method adds to its three weights.

    Attributes:
        timestep: As in `StepCoefficients`.
        xstart_weight: As in `StepCoefficients`.
        x_weight: As in `StepCoefficients`.
        noise_scale: As in `StepCoefficients`; of a learned variance, only whether there is noise.
        memory_weight: Of x_0 minus the x_0 of the step before.
        looks_back: Whether the method's later steps need this step's x_0.
        corrector: The second half of the step, of "heun" alone.
        log_variances: The smallest and largest log sigma^2 of a learned variance.
    """

    timestep: int
    xstart_weight: float
    x_weight: float
    noise_scale: float
    memory_weight: float = 0.0
    looks_back: bool = False
    corrector: Corrector | None = None
    log_variances: tuple[float, float] | None = None


def settled(config: SamplingConfig, diffusion: DiffusionConfig) -> SamplingConfig:
    """Return a sampler that says all of itself: ddpm's variance, where none was named.

    It is the model's for the whole chain, and a learned one for any. Otherwise a shorter one takes
    "fixed_small": its betas are large, and with them as variances as much noise is left as is
    taken away.
    """
    if config.method != "ddpm" or config.variance is not None:
        return config
    is_own = config.num_steps >= diffusion.num_timesteps or diffusion.variance == "learned"
    return replace(config, variance=diffusion.variance if is_own else "fixed_small")


def step_coefficients(
    config: SamplingConfig, diffusion: GaussianDiffusion
) -> list[StepCoefficients]:
    """Compute the three weights of every step of a chain, in the order they are taken.

    Args:
        config: The sampler.
        diffusion: The model's diffusion.

    Returns:
        One entry for each reverse step; the first leaves x_T.

    Raises:
        ConfigError: More steps are asked for than there are.
    """
    return [
        StepCoefficients(step.timestep, step.xstart_weight, step.x_weight, step.noise_scale)
        for step in plan_steps(config, diffusion)
    ]


def plan_steps(config: SamplingConfig, diffusion: GaussianDiffusion) -> list[PlannedStep]:
    """Compute all weights of every step of a chain, in the order they are taken.

    Args:
        config: The sampler.
        diffusion: The model's diffusion.

    Returns:
        One entry for each reverse step; the first leaves x_T.

    Raises:
        ConfigError: More steps are asked for than there are, or a variance that was not learned.
    """
    timesteps = sampling_timesteps(config, diffusion.num_timesteps, diffusion.schedule)
    schedule = diffusion.schedule.respaced(timesteps)
    if config.method == "ddpm":
        return _ddpm_steps(settled(config, diffusion.config), diffusion, schedule, timesteps)
    if config.method == "ddim":
        return _in_order(timesteps, *_ddim_weights(config, schedule))
    steps = _in_order(timesteps, *_first_order_weights(schedule))
    if config.method == "heun":
        return _corrected(steps, schedule)
    return _multistep(steps, schedule, is_sde=config.method == "dpm++2m_sde")


def _in_order(timesteps: Sequence[int], *tables: Tensor) -> list[PlannedStep]:
    rows = zip(timesteps, *(table.tolist() for table in tables), strict=True)
    return [PlannedStep(*row) for row in rows][::-1]


def _ddpm_steps(
    config: SamplingConfig,
    diffusion: GaussianDiffusion,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
) -> list[PlannedStep]:
    """Return the steps of Ho et al. 2020, algorithm 2, on the respaced chain."""
    is_learned = config.variance == "learned"
    if is_learned and not diffusion.has_learned_variance:
        requirement = "fixed_small or fixed_large: the model has not learned its variance"
        raise ConfigError("variance", config.variance, requirement)
    chosen = schedule.posterior_variance if config.variance == "fixed_small" else schedule.betas
    noise_scale = chosen.sqrt()
    noise_scale[0] = 0.0  # the last step taken is the mean alone
    coefs = schedule.posterior_mean_coef1, schedule.posterior_mean_coef2
    steps = _in_order(timesteps, *coefs, noise_scale)
    if not is_learned:
        return steps
    smallest = schedule.posterior_log_variance_clipped.tolist()[::-1]
    largest = schedule.betas.log().tolist()[::-1]
    bounds = zip(smallest, largest, strict=True)
    return [replace(step, log_variances=ends) for step, ends in zip(steps, bounds, strict=True)]


def _ddim_weights(config: SamplingConfig, schedule: NoiseSchedule) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of Song et al. 2020, eq. 12 and 16: (S,) float64.

    There x_prev = sqrt(alphas_cumprod_prev) x_0 + sqrt(1 - alphas_cumprod_prev - sigma^2) eps
    + sigma z, where eps is what x_t holds beside x_0, itself a weighted sum of the two.
    """
    previous = schedule.alphas_cumprod_prev
    noise_scale = config.eta * schedule.posterior_variance.sqrt()
    remaining = (1.0 - previous - noise_scale.square()).clamp(min=0.0)
    x_weight = remaining.sqrt() / schedule.sqrt_one_minus_alphas_cumprod
    xstart_weight = previous.sqrt() - x_weight * schedule.sqrt_alphas_cumprod
    return xstart_weight, x_weight, noise_scale


def _first_order_weights(schedule: NoiseSchedule) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of Euler's step, which are those of DDIM without noise."""
    return _ddim_weights(SamplingConfig(method="ddim"), schedule)


def _corrected(steps: Sequence[PlannedStep], schedule: NoiseSchedule) -> list[PlannedStep]:
    """Return Heun's steps: Karras et al. 2022, algorithm 1, without its noise.

    In x / a, whose noise is u = s / a, the mean of the slopes at both ends adds (a' - a s' / s)
    u / (2 u') times the change of x_0. The last step, to u' = 0, and one from pure noise, where u
    is infinite, stay Euler's.
    """
    noise = schedule.sqrt_recipm1_alphas_cumprod.tolist()[::-1]
    corrected = []
    for number, step in enumerate(steps[:-1]):
        ratio = noise[number] / noise[number + 1]
        corrector = Corrector(steps[number + 1].timestep, step.xstart_weight * ratio / 2.0)
        corrected.append(replace(step, corrector=corrector) if math.isfinite(ratio) else step)
    return [*corrected, steps[-1]]


def _multistep(
    steps: Sequence[PlannedStep], schedule: NoiseSchedule, *, is_sde: bool
) -> list[PlannedStep]:
    """Return the steps of DPM-Solver++(2M): Lu et al. 2022b, algorithm 2, or its SDE, eq. 18.

    With h the step in log(a / s), the change of x_0 since the step before is extrapolated over half
    of this one. The first step has none before it; the last, whose h is infinite, ends at x_0.
    """
    cumprod = schedule.alphas_cumprod
    half_log_snr = (0.5 * (cumprod.log() - (1.0 - cumprod).log())).tolist()[::-1]
    planned, before = [], math.inf
    for number, step in enumerate(steps[:-1]):
        h = half_log_snr[number + 1] - half_log_snr[number]
        if is_sde:
            step = _with_noise(step, schedule.alphas_cumprod.tolist()[::-1][number + 1], h)
        share = 0.5 * h / before if math.isfinite(before) else 0.0
        planned.append(replace(step, memory_weight=share * step.xstart_weight, looks_back=True))
        before = h
    return [*planned, replace(steps[-1], looks_back=True)]


def _with_noise(step: PlannedStep, cumprod_prev: float, h: float) -> PlannedStep:
    """Return a first-order step of the SDE: what is forgotten of x comes back as fresh noise."""
    forgotten = -math.expm1(-2.0 * h)
    return replace(
        step,
        xstart_weight=math.sqrt(cumprod_prev) * forgotten,
        x_weight=step.x_weight * math.exp(-h),
        noise_scale=math.sqrt((1.0 - cumprod_prev) * forgotten),
    )
