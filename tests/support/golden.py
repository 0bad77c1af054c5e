"""What has to stay the same from version to version, as hashes: noise, order, tables, one step."""

import hashlib
from collections.abc import Callable

import numpy as np
import torch

from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, SamplingConfig, TrainingConfig, UNetConfig
from ddpm.network.unet import UNet
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.noise import Stream, flips, sample_noise, training_noise, training_timesteps
from ddpm.process.sampling import draw
from ddpm.process.schedule import NoiseSchedule, build_schedule
from ddpm.process.spacing import sampling_timesteps
from ddpm.training.data import ImageDataset
from ddpm.training.loop import TrainState, train_steps
from ddpm.training.order import BatchOrder

SHAPE = (2, 8, 8)
UNET = UNetConfig(channels=32, channel_multipliers=(1, 2), num_res_blocks=1, dropout=0.1)
DIFFUSION = DiffusionConfig(num_timesteps=50)
TABLES = (
    "betas",
    "alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "sqrt_recipm1_alphas_cumprod",
)


def digest(*tensors: torch.Tensor) -> str:
    """Return the SHA-256 of the tensors' bytes, one behind the other."""
    hashed = hashlib.sha256()
    for tensor in tensors:
        hashed.update(tensor.contiguous().numpy().tobytes())
    return hashed.hexdigest()


def schedule_of(betas: str, num_timesteps: int) -> NoiseSchedule:
    """Return a schedule by its name in job files."""
    return build_schedule(DiffusionConfig(num_timesteps=num_timesteps, betas=betas))  # type: ignore[arg-type]


def _sampling_noise() -> str:
    indices = torch.tensor([0, 1, 12345, 2**32 + 5, 2**62])
    streams = [sample_noise(7, indices, t, (3, 8, 8)) for t in (0, 1, 999)]
    other = sample_noise(2**63 - 1, indices, 5, (1, 5, 7), stream=Stream.EVALUATION_NOISE)
    return digest(*streams, other)


def _training_draws() -> str:
    positions = torch.arange(64)
    return digest(
        training_noise(3, 17, positions, (1, 4, 4)),
        training_timesteps(3, 17, positions, 1000),
        flips(3, 17, positions),
    )


def _order() -> str:
    order = BatchOrder(1797, 128, 5)
    return digest(*(torch.from_numpy(order.indices(step)) for step in (0, 1, 14, 15, 1000)))


def _spacings() -> str:
    grids = [
        sampling_timesteps(SamplingConfig(num_steps=steps, spacing=spacing), 1000)
        for steps in (1, 10, 50, 1000)
        for spacing in ("linear", "quadratic")
        if (steps, spacing) != (1000, "quadratic")
    ]
    return digest(*map(torch.tensor, grids))


EVERYWHERE: dict[str, Callable[[], str]] = {
    "sampling noise": _sampling_noise,
    "training draws": _training_draws,
    "order of images": _order,
    "timesteps of shortened chains": _spacings,
}


def training_step() -> str:
    """Return a digest of weights, average and moments after two training steps."""
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 2), dtype=np.uint8)
    state = TrainState(
        unet_config=UNET,
        diffusion_config=DIFFUSION,
        config=TrainingConfig(
            num_steps=2, global_batch_size=6, learning_rate=1e-3, ema_decay=0.9, precision="float32"
        ),
        image_shape=SHAPE,
        compute=ComputeDecision(),
    )
    for _ in train_steps(state, ImageDataset(images, np.arange(len(images))), until_step=2):
        pass
    return digest(state.parameters.values, state.ema, *state.optimizer.moments.values())


def chain(method: str) -> str:
    """Return a digest of the images that an untrained network draws."""
    torch.manual_seed(0)
    network = UNet(UNET, SHAPE).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape))
        images = draw(
            network,
            GaussianDiffusion(DIFFUSION),
            SamplingConfig(
                method=method,  # type: ignore[arg-type]
                num_steps=6,
                seed=11,
                microbatch_size=4,
                variance="fixed_small",
            ),
            torch.arange(4),
            SHAPE,
            torch.device("cpu"),
        )
    return digest(images)
