"""What a training shows: sample grids on the way, and at the end the bound and the film strips."""

import functools
import logging
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm.baselines.vae import VAE, vae_bits_per_dim
from ddpm.compute import ComputeDecision
from ddpm.config import SamplingConfig
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.likelihood import BitsPerDimension, bits_per_dim, mean_and_error
from ddpm.process.noise import training_noise
from ddpm.process.sampling import draw, sample_chain, to_uint8
from ddpm.training.data import ImageDataset, to_float
from ddpm.training.families import build_model
from ddpm.training.flat import FlatParameters
from ddpm.training.loop import TrainState
from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.images import film_strip, image_grid
from orchestrator.artifacts.samples.labels import by_class, make_rule
from orchestrator.attempts.attempt import Attempt
from orchestrator.jobs.held_out_bound import HELD_OUT_BOUND, HeldOutBound, ImageTerms
from orchestrator.specs.train import TrainJob
from orchestrator.tracking import tags
from orchestrator.tracking.writer import MetricWriter

NUM_FRAMES = 11
NUM_STRIPS = 4
_BATCH = 64
_PARTS_OF_BOUND = {
    "bpd": "total",
    "bpd_prior": "prior",
    "bpd_denoising": "denoising",
    "bpd_decoder": "decoder",
}

logger = logging.getLogger(__name__)


class AveragedModel:
    """The moving average of a state's weights as a network that predicts.

    Args:
        state: Whose average it is; a copy of now.

    Attributes:
        network: The network itself.
    """

    def __init__(self, state: TrainState) -> None:
        self._compute: ComputeDecision = state.compute
        self.network = build_model(
            state.model.config, state.diffusion_config, state.model.image_shape
        )
        state.compute.place(self.network)
        FlatParameters(self.network).values.copy_(state.ema)
        self.network.eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Predict for x_t: (B, C, H, W) float32, t and labels: (B,) int64; None: no class."""
        with self._compute.autocast():
            output: Tensor = self.network(x_t, t, labels)
        return output


def log_samples(spec: TrainJob, state: TrainState, metrics: MetricWriter) -> None:
    """Draw the grid of always the same seed with the averaged weights, and log it.

    Of a network that knows classes each row is one class.
    """
    num_images, device = spec.tracking.num_sample_images, state.compute.device
    indices, sampler = torch.arange(num_images, device=device), _grid_sampler(spec, state)
    rule = make_rule(sampler, state.model.config.known_classes)
    model: Callable[..., Tensor] = AveragedModel(state)
    if rule is not None:
        labels = torch.from_numpy(rule.of(0, num_images)).to(device)
        model = functools.partial(model, labels=labels)
    images = draw(model, _diffusion(state), sampler, indices, state.model.image_shape)
    png = image_grid(*by_class(to_uint8(images).cpu().numpy(), rule))
    metrics.log_image(f"samples/step-{state.step:06d}.png", png, state.step)


def final_report(
    attempt: Attempt,
    spec: TrainJob,
    state: TrainState,
    holdout: ImageDataset,
    metrics: MetricWriter,
) -> dict[str, float]:
    """Log what a finished training is worth, and have its model registered.

    Returns:
        The bound of the held-out images: "bpd" with its standard error "bpd_se"; or nothing.
    """
    scores: dict[str, float] = {}
    if spec.tracking.sample_every_steps:
        log_samples(spec, state, metrics)
        _log_strips(spec, state, holdout, metrics)
    if spec.evaluation.num_images and len(holdout) and state.family.has_bound:
        means, terms = evaluate(spec, state, holdout)
        if holdout.num_levels is None:
            attempt.tell("the bound leaves L_0 out, which images of real numbers do not have")
        metrics.log(state.step, means)
        scores = {
            name: means[f"holdout/{name}"]
            for name in ("bpd", "bpd_se")
            if f"holdout/{name}" in means
        }
        bound = HeldOutBound(
            step=state.step, means=means, images=terms, num_levels=holdout.num_levels
        )
        attempt.store.put(attempt.paths.held_out_bound, HELD_OUT_BOUND.encode(bound))
    commit = CheckpointStore(attempt.store, attempt.job_paths).find(state.step)
    if commit is not None:
        metrics.log_model(
            spec.tracking.registered_model or spec.name,
            source=f"{attempt.store.uri}/{commit.folder}",
            step=state.step,
            sha256=commit.sha256,
            tags={tags.COMMIT: f"{attempt.store.uri}/{attempt.job_paths.checkpoint(state.step)}"},
        )
    return scores


def evaluate(
    spec: TrainJob, state: TrainState, holdout: ImageDataset
) -> tuple[dict[str, float], list[ImageTerms]]:
    """Compute the bound of held-out images, in bits per dimension.

    Returns:
        The means of the bound and of its three terms with their standard errors, and for each image
        the timesteps that were drawn with their terms.
    """
    images: list[ImageTerms] = []
    model, diffusion = AveragedModel(state), _diffusion(state)
    num_images = min(spec.evaluation.num_images, len(holdout))
    shown = dict(_PARTS_OF_BOUND)
    if holdout.num_levels is None:
        del shown["bpd_decoder"]
    parts: dict[str, list[Tensor]] = {name: [] for name in shown}
    for first in range(0, num_images, _BATCH):
        chosen = np.arange(first, min(first + _BATCH, num_images))
        bound = _bound(model, diffusion, spec, holdout, chosen)
        for name, attribute in shown.items():
            parts[name].append(getattr(bound, attribute))
        rows = zip(chosen.tolist(), bound.timesteps.tolist(), bound.terms.tolist(), strict=True)
        images += [ImageTerms(image=k, timesteps=t, terms=terms) for k, t, terms in rows]
    means = _with_errors({name: torch.cat(values) for name, values in parts.items()})
    logger.info("held-out bound of %d images: %s", num_images, bound_text(means))
    return {**means, "holdout/num_images": float(num_images)}, images


def bound_text(means: Mapping[str, float]) -> str:
    """Return a bound for people: "4.57 ± 0.05 bits/dim (prior 0.01, denoising 2.01, ...)"."""
    texts = {}
    for name, part in _PARTS_OF_BOUND.items():
        mean, error = (means.get(f"holdout/{name}{end}") for end in ("", "_se"))
        if mean is not None:
            texts[part] = f"{mean:.4g}" + ("" if error is None else f" ± {error:.2g}")
    total = texts.pop("total")
    return f"{total} bits/dim ({', '.join(f'{part} {text}' for part, text in texts.items())})"


def _bound(
    model: AveragedModel,
    diffusion: GaussianDiffusion,
    spec: TrainJob,
    holdout: ImageDataset,
    chosen: NDArray[np.int64],
) -> BitsPerDimension:
    """Return the bound of some images, in the way of the model's family."""
    device, seed, num_levels = diffusion.betas.device, spec.training.seed, holdout.num_levels
    x_start = to_float(holdout.read(chosen).to(device))
    indices = torch.from_numpy(chosen).to(device)
    if isinstance(model.network, VAE):
        return vae_bits_per_dim(model.network, x_start, indices, seed=seed, num_levels=num_levels)
    return bits_per_dim(
        model,
        diffusion,
        x_start,
        indices,
        seed=seed,
        num_timesteps=min(spec.evaluation.num_timesteps, diffusion.num_timesteps),
        num_levels=num_levels,
    )


def _with_errors(parts: Mapping[str, Tensor]) -> dict[str, float]:
    """Return each part's mean over the images and, of more than one, its standard error."""
    numbers: dict[str, float] = {}
    for name, values in parts.items():
        mean, error = mean_and_error(values)
        numbers[f"holdout/{name}"] = mean
        if error is not None:
            numbers[f"holdout/{name}_se"] = error
    return numbers


def _diffusion(state: TrainState) -> GaussianDiffusion:
    return GaussianDiffusion(state.diffusion_config).to(state.compute.device)


def _grid_sampler(spec: TrainJob, state: TrainState) -> SamplingConfig:
    num_steps = min(spec.tracking.sample_steps, state.diffusion_config.num_timesteps)
    return SamplingConfig(method="ddim", num_steps=num_steps, seed=spec.training.seed)


def _log_strips(
    spec: TrainJob, state: TrainState, holdout: ImageDataset, metrics: MetricWriter
) -> None:
    reverse = reverse_frames(spec, state)
    metrics.log_image("film/reverse-chain.png", film_strip(reverse), state.step)
    if len(holdout):
        forward = forward_frames(spec, state, holdout)
        metrics.log_image("film/forward-chain.png", film_strip(forward), state.step)


def reverse_frames(spec: TrainJob, state: TrainState) -> NDArray[np.uint8]:
    """Return (N, F, H, W, C) uint8: the way of the first images from x_T to x_0."""
    sampler = _grid_sampler(spec, state)
    indices = torch.arange(NUM_STRIPS, device=state.compute.device)
    chain = sample_chain(
        AveragedModel(state), _diffusion(state), sampler, indices, state.model.image_shape
    )
    kept = set(np.linspace(0, sampler.num_steps, NUM_FRAMES).round().astype(int).tolist())
    frames = [to_uint8(at.x).cpu().numpy() for at in chain if at.step_index in kept]
    return np.stack(frames, axis=1)


def forward_frames(spec: TrainJob, state: TrainState, holdout: ImageDataset) -> NDArray[np.uint8]:
    """Return (N, F, H, W, C) uint8: held-out images from x_0 to x_T, one noise an image."""
    device, diffusion = state.compute.device, _diffusion(state)
    chosen = np.arange(min(NUM_STRIPS, len(holdout)))
    x_start = to_float(holdout.read(chosen).to(device))
    positions = torch.from_numpy(chosen).to(device)
    noise = training_noise(spec.training.seed, 0, positions, state.model.image_shape)
    frames = [to_uint8(x_start).cpu().numpy()]
    for t in np.linspace(0, diffusion.num_timesteps - 1, NUM_FRAMES - 1).round().astype(int):
        at = torch.full((len(chosen),), int(t), device=device)
        frames.append(to_uint8(diffusion.q_sample(x_start, at, noise)).cpu().numpy())
    return np.stack(frames, axis=1)
