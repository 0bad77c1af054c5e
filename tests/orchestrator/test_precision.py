"""bfloat16 stays near float64: in one prediction, over a whole chain, and in the loss of a run."""

import copy
import statistics

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, SamplingConfig, TrainingConfig, UNetConfig
from ddpm.network.unet import UNet
from ddpm.process.gaussian import Denoiser, GaussianDiffusion
from ddpm.process.noise import sample_noise
from ddpm.process.sampling import draw
from ddpm.training.data import ImageDataset, to_float
from ddpm.training.loop import TrainState, train_steps
from orchestrator.sampling.network import build_denoiser
from tests.support.amx import AMX_OBSTACLE

pytestmark = pytest.mark.slow

NUM_STEPS, LAST = 100, 30
SHAPE = (1, 8, 8)
DIFFUSION = DiffusionConfig(num_timesteps=100)


FLOAT32, BF16 = ComputeDecision(), ComputeDecision(precision="bf16")
AMX = pytest.param(
    ComputeDecision(precision="bf16", kernels="amx"),
    marks=pytest.mark.skipif(AMX_OBSTACLE is not None, reason="no AMX kernels here"),
)


def digits() -> ImageDataset:
    """Return all digits."""
    from sklearn.datasets import load_digits

    images = np.round(load_digits().images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    return ImageDataset(images, np.arange(len(images)))


def train(compute: ComputeDecision) -> tuple[UNet, list[float]]:
    """Train a small network on digits; return its averaged weights and the loss of each step."""
    state = TrainState(
        unet_config=UNetConfig(channels=32, channel_multipliers=(1, 2), num_res_blocks=1),
        diffusion_config=DIFFUSION,
        config=TrainingConfig(
            num_steps=NUM_STEPS, global_batch_size=32, learning_rate=2e-3, ema_decay=0.9
        ),
        image_shape=SHAPE,
        compute=compute,
    )
    losses = [step.loss for step in train_steps(state, digits(), until_step=NUM_STEPS)]
    state.parameters.fill(state.parameters.values, state.parameters.contiguous_tensors(state.ema))
    assert isinstance(state.model, UNet)
    return state.model.eval(), losses


@pytest.fixture(scope="module")
def trained() -> tuple[UNet, list[float]]:
    """A network trained in float32, and its losses."""
    return train(FLOAT32)


def in_float64(model: UNet) -> Denoiser:
    """Return the network as the arithmetic of reference."""
    exact = copy.deepcopy(model).double()

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        with torch.no_grad():
            predicted: Tensor = exact(x_t, t)
            return predicted

    return denoise


def as_decided(model: UNet, compute: ComputeDecision) -> Denoiser:
    """Return the network as a sample job runs it."""
    return build_denoiser(copy.deepcopy(model), compute)


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Return the L2 norm of the difference as a share of that of the exact one."""
    return float(torch.linalg.vector_norm(found - exact) / torch.linalg.vector_norm(exact))


# Of a predicted noise, by timestep: where little noise is left, bfloat16's rounding of the image
# weighs more on it.
BF16_BOUNDS = {0: 0.3, 2: 0.15, 20: 0.05, 50: 0.02, 99: 1e-2}


@pytest.mark.parametrize("compute", [FLOAT32, BF16, AMX])
def test_a_prediction_is_near_that_of_float64(
    trained: tuple[UNet, list[float]], compute: ComputeDecision
) -> None:
    """On noisy digits at every level of noise; and the x_0 that follows is near at each."""
    exact, near = in_float64(trained[0]), as_decided(trained[0], compute)
    diffusion = GaussianDiffusion(DIFFUSION)
    x_start = to_float(digits().read(np.arange(32)))
    for timestep, bound in BF16_BOUNDS.items():
        t = torch.full((32,), timestep)
        noise = sample_noise(1, torch.arange(32), timestep, SHAPE)
        x_t = diffusion.q_sample(x_start, t, noise)
        found, wanted = near(x_t, t), exact(x_t, t)
        is_exact = compute.precision == "float32"
        assert relative_error(found, wanted) < (1e-5 if is_exact else bound), timestep
        x_0 = (diffusion.predict_xstart(eps, x_t, t) for eps in (found, wanted.float()))
        # 1.5e-2 where the processor multiplies bfloat16, 2.8e-2 where it has to emulate it
        assert relative_error(*x_0) < (1e-5 if is_exact else 4e-2), timestep


@pytest.mark.parametrize("compute", [FLOAT32, BF16, AMX])
@pytest.mark.parametrize(("method", "num_steps"), [("ddpm", 100), ("ddim", 20)])
def test_the_images_of_a_whole_chain_are_near_those_of_float64(
    trained: tuple[UNet, list[float]], compute: ComputeDecision, method: str, num_steps: int
) -> None:
    """Errors of hundreds of steps do not add up to another image."""
    bound = 2e-6 if compute.precision == "float32" else 1.5e-2
    config = SamplingConfig(
        method=method,  # type: ignore[arg-type]
        num_steps=num_steps,
        microbatch_size=8,
        seed=5,
    )
    diffusion, indices = GaussianDiffusion(DIFFUSION), torch.arange(8)
    exact, near = (
        draw(denoiser, diffusion, config, indices, SHAPE)
        for denoiser in (in_float64(trained[0]), as_decided(trained[0], compute))
    )
    assert relative_error(near, exact) < bound


@pytest.mark.parametrize("compute", [BF16, AMX])
def test_training_in_bfloat16_follows_the_losses_of_float32(
    trained: tuple[UNet, list[float]], compute: ComputeDecision
) -> None:
    """Step by step the same images, timesteps and noise; the losses part by less than 1 %."""
    (_, exact), (_, near) = trained, train(compute)
    apart = [abs(n - e) / e for n, e in zip(near, exact, strict=True)]
    assert statistics.median(apart) < 0.01
    late = statistics.fmean(near[-LAST:]) / statistics.fmean(exact[-LAST:])
    assert abs(late - 1) < 0.02
    assert statistics.fmean(near[-LAST:]) < 0.5 * near[0]  # it learnt
