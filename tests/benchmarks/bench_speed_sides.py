"""What `bench_speed` compares: this project and diffusers, at the same sizes and the same work.

A side is a name and a way to build a turn: a call that does the set-up's work once. Both sides of
a task see the same number of images, of the same shape, over the same number of steps.

* Sampling: `num_reverse_steps` steps of a DDPM chain that is respaced out of 1000, to bytes.
* Training: whole steps: batch to floats, noise, forward, backward, clip, AdamW, moving average.

"as installed" is what diffusers' own examples do: float32, eager. Its other sides add bfloat16,
channels_last, torch.compile (on a GPU also with CUDA graphs), fused AdamW and a moving average over
lists of tensors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ddpm.compute import (
    ComputeDecision,
    DeviceKind,
    compile_obstacle,
    decide_compute,
    has_fast_bf16,
)
from ddpm.config import DiffusionConfig, SamplingConfig, TrainingConfig, UNetConfig
from ddpm.kernels.amx.network import fits_tiles
from ddpm.network.unet import UNet
from ddpm.network.unet_size import count_parameters
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.sampling import draw, to_uint8
from ddpm.training.data import ImageDataset
from ddpm.training.loop import TrainState, train_steps
from orchestrator.attempts.compute import set_up_process
from orchestrator.sampling.network import build_denoiser
from orchestrator.specs.job import TrainJob
from orchestrator.specs.kinds import load_spec

ROOT = Path(__file__).resolve().parents[2]
AS_INSTALLED = "diffusers, as installed"
OURS, OURS_EAGER = "ddpmctl", "ddpmctl, eager"
NUM_IMAGES = 1024
WEIGHT_DECAY, LEARNING_RATE, EMA_DECAY = 1e-2, 2e-4, 0.9999

Task = Literal["sampling", "training"]
Turn = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A model's sizes, and how much work a turn is.

    Attributes:
        name: For the table and for `--only`.
        unet: The sizes.
        image_shape: (C, H, W).
        batch_size: Images that go through the network together.
        num_reverse_steps: Of a turn of sampling.
        num_training_steps: Of a turn of training.
    """

    name: str
    unet: UNetConfig
    image_shape: tuple[int, int, int]
    batch_size: int
    num_reverse_steps: int
    num_training_steps: int

    def num_steps(self, task: Task) -> int:
        """Return how often a turn runs the network over the batch."""
        return self.num_reverse_steps if task == "sampling" else self.num_training_steps

    def images_of(self, task: Task) -> int:
        """Return how many images a turn draws, or trains on."""
        return self.batch_size * (self.num_training_steps if task == "training" else 1)


@dataclass(frozen=True)
class Side:
    """One of those that take turns.

    Attributes:
        name: For the table.
        build: Makes the turn of a set-up; everything that is done once is done here.
    """

    name: str
    build: Callable[[Setup], Turn]


@dataclass(frozen=True, kw_only=True)
class DiffusersOptions:
    """How diffusers is used.

    Attributes:
        is_tuned: The machine's fastest dtype, fused AdamW and a moving average over lists.
        channels_last: Weights and images in that memory format.
        compiled: The network goes through torch.compile.
        replayed: Compiled on a GPU, it is replayed as CUDA graphs (mode="reduce-overhead").
    """

    is_tuned: bool = False
    channels_last: bool = False
    compiled: bool = False
    replayed: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights while sampling, and of autocast while training."""
        fast = self.is_tuned and has_fast_bf16(device_kind())
        return torch.bfloat16 if fast else torch.float32

    def network(self, model: Any) -> Any:
        """Return a model as it is to be called."""
        if not self.compiled:
            return model
        mode = "reduce-overhead" if self.replayed else None
        return torch.compile(model, dynamic=False, mode=mode)

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory format of weights and images."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def device_kind() -> DeviceKind:
    """Return what everything runs on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def synchronize() -> None:
    """Wait until the device has done what it was given."""
    if device_kind() == "cuda":
        torch.cuda.synchronize()


def setups(is_quick: bool) -> list[Setup]:
    """Return the set-ups: the CIFAR-10 model of Ho et al. 2020, and that of jobs/train.yaml.

    Turns are short and many: a machine that others share was seen to change its speed fourfold from
    one minute to the next, which sides that take turns of seconds share. But they are so long that
    most of a turn finds in the caches what it would in a long run, and not what others left there.
    """
    digits_job = load_spec(ROOT / "jobs" / "train.yaml")
    assert isinstance(digits_job, TrainJob)
    cifar = Setup(
        name="cifar10-16",
        unet=UNetConfig(),
        image_shape=(3, 32, 32),
        batch_size=16,
        num_reverse_steps=12,
        num_training_steps=3,
    )
    larger = replace(
        cifar, name="cifar10-64", batch_size=64, num_reverse_steps=4, num_training_steps=1
    )
    digits = Setup(
        name="digits-16" if is_quick else "digits-128",
        unet=digits_job.model,
        image_shape=(1, 8, 8),
        batch_size=16 if is_quick else digits_job.training.global_batch_size,
        num_reverse_steps=60,
        num_training_steps=5,
    )
    return [digits, cifar] if is_quick else [digits, cifar, larger]


def sides(task: Task, with_compile: bool) -> list[Side]:
    """Return who takes part; ours first, then diffusers as installed, then its faster ways."""
    compiles = with_compile and compile_obstacle(device_kind()) is None
    ours = _our_sampling if task == "sampling" else _our_training
    theirs = _their_sampling if task == "sampling" else _their_training
    ours_at_best = partial(ours, compile_request="auto", worth_compiling=compiles)
    ours_eager = partial(ours, compile_request=False, worth_compiling=False)
    found = [Side(OURS, ours_at_best), Side(OURS_EAGER, ours_eager)]
    found.append(Side(AS_INSTALLED, partial(theirs, options=DiffusersOptions())))
    tuned = [
        DiffusersOptions(is_tuned=True, channels_last=channels_last, compiled=compiled)
        for channels_last in (False, True)
        for compiled in ((False, True) if compiles else (False,))
    ]
    if compiles and device_kind() == "cuda":
        tuned.append(replace(tuned[-1], replayed=True))
    return found + [Side(_their_name(one), partial(theirs, options=one)) for one in tuned]


def _their_name(options: DiffusersOptions) -> str:
    words = ["bf16" if options.dtype == torch.bfloat16 else "float32"]
    words += ["channels_last"] * options.channels_last + ["compiled"] * options.compiled
    words += ["CUDA graphs"] * options.replayed
    return f"diffusers, {' '.join(words)}"


def network_flops(task: Task, setup: Setup) -> int:
    """Count the operations of our network for one image and one step, backward included.

    Multiplications and additions of convolutions and matrix products, by torch's FlopCounterMode.
    """
    model = UNet(setup.unet, setup.image_shape).train(task == "training")
    x_t, t = torch.zeros(1, *setup.image_shape), torch.zeros(1, dtype=torch.int64)
    counter = FlopCounterMode(display=False)
    # The fused attention of CPUs has no formula there; the plain form is the same work.
    with sdpa_kernel(SDPBackend.MATH), counter:
        if task == "sampling":
            with torch.no_grad():
                model(x_t, t)
        else:
            model(x_t, t).square().mean().backward()
    return int(counter.get_total_flops())


def _compute(
    setup: Setup, compile_request: bool | Literal["auto"], worth_compiling: bool
) -> ComputeDecision:
    """Decide as a job with much work does, and set the process up for it."""
    decision = decide_compute(
        precision="auto",
        compile_request=compile_request,
        num_threads=torch.get_num_threads(),
        worth_compiling=worth_compiling,
        fits_tiles=fits_tiles(setup.unet, setup.batch_size),
        device_kind=device_kind(),
    )
    set_up_process(decision)
    return decision


def _our_sampling(
    setup: Setup, *, compile_request: bool | Literal["auto"], worth_compiling: bool
) -> Turn:
    model = UNet(setup.unet, setup.image_shape).eval().requires_grad_(False)
    denoiser = build_denoiser(model, _compute(setup, compile_request, worth_compiling))
    diffusion = GaussianDiffusion(DiffusionConfig()).to(device_kind())
    config = SamplingConfig(
        num_steps=setup.num_reverse_steps, microbatch_size=setup.batch_size, seed=1
    )
    indices = torch.arange(setup.batch_size)

    def turn() -> None:
        x = draw(denoiser, diffusion, config, indices, setup.image_shape, device_kind())
        to_uint8(x).cpu()

    return turn


def _our_training(
    setup: Setup, *, compile_request: bool | Literal["auto"], worth_compiling: bool
) -> Turn:
    config = TrainingConfig(
        num_steps=10**6,
        global_batch_size=setup.batch_size,
        optimizer="adamw",
        weight_decay=WEIGHT_DECAY,
        learning_rate=LEARNING_RATE,
        ema_decay=EMA_DECAY,
    )
    state = TrainState(
        unet_config=setup.unet,
        diffusion_config=DiffusionConfig(),
        config=config,
        image_shape=setup.image_shape,
        compute=_compute(setup, compile_request, worth_compiling),
    )
    dataset = ImageDataset(_images(setup), np.arange(NUM_IMAGES))

    def turn() -> None:
        for _ in train_steps(state, dataset, until_step=state.step + setup.num_training_steps):
            pass

    return turn


def _images(setup: Setup) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return (N, H, W, C) uint8 of noise."""
    channels, height, width = setup.image_shape
    shape = (NUM_IMAGES, height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _their_model(setup: Setup) -> Any:
    """Build diffusers' U-Net with the settings of google/ddpm-cifar10-32, at our sizes."""
    from diffusers import UNet2DModel
    from diffusers.utils import logging

    logging.set_verbosity_error()
    unet, (channels, height, _) = setup.unet, setup.image_shape
    levels = range(len(unet.channel_multipliers))
    attended = [height >> level in unet.attention_resolutions for level in levels]
    model = UNet2DModel(
        sample_size=height,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(unet.channels * m for m in unet.channel_multipliers),
        layers_per_block=unet.num_res_blocks,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attended),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in attended[::-1]),
        dropout=unet.dropout,
        attention_head_dim=None,  # one head
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )
    assert sum(p.numel() for p in model.parameters()) == count_parameters(unet, setup.image_shape)
    return model.to(device_kind())


def _their_scheduler() -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(num_train_timesteps=1000, variance_type="fixed_large")


def _their_sampling(setup: Setup, *, options: DiffusersOptions) -> Turn:
    model = _their_model(setup).eval().requires_grad_(False)
    model.to(dtype=options.dtype, memory_format=options.memory_format)
    network = options.network(model)
    scheduler = _their_scheduler()
    scheduler.set_timesteps(setup.num_reverse_steps, device=device_kind())
    shape = (setup.batch_size, *setup.image_shape)

    def turn() -> None:
        with torch.no_grad():
            x = torch.randn(shape, device=device_kind(), dtype=options.dtype)
            x = x.contiguous(memory_format=options.memory_format)
            for t in scheduler.timesteps:
                x = scheduler.step(network(x, t).sample, t, x).prev_sample
            to_uint8(x.float()).cpu()

    return turn


def _their_batches(setup: Setup, options: DiffusersOptions) -> Iterator[Tensor]:
    """Yield (B, C, H, W) float32 in [-1, 1], on the device."""
    images = torch.from_numpy(_images(setup)).permute(0, 3, 1, 2)
    while True:
        for indices in torch.randperm(NUM_IMAGES).split(setup.batch_size):
            batch = images[indices].to(device_kind()).float() / 127.5 - 1.0
            yield batch.contiguous(memory_format=options.memory_format)


def _their_training(setup: Setup, *, options: DiffusersOptions) -> Turn:
    from diffusers.training_utils import EMAModel

    model = _their_model(setup).train().to(memory_format=options.memory_format)
    network = options.network(model)
    scheduler = _their_scheduler()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=options.is_tuned or None
    )
    ema = EMAModel(parameters, decay=EMA_DECAY, use_ema_warmup=True, foreach=options.is_tuned)
    ema.to(device_kind())
    batches = _their_batches(setup, options)
    is_bf16 = options.dtype == torch.bfloat16

    def step() -> None:
        x_start = next(batches)
        noise = torch.randn_like(x_start)
        t = torch.randint(0, 1000, (len(x_start),), device=device_kind())
        x_t = scheduler.add_noise(x_start, noise, t)
        with torch.autocast(device_kind(), dtype=torch.bfloat16, enabled=is_bf16):
            output = network(x_t, t).sample
        F.mse_loss(output.float(), noise).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(parameters)

    def turn() -> None:
        for _ in range(setup.num_training_steps):
            step()

    return turn
