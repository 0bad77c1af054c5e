"""What `bench_speed` compares: this project and diffusers, at the same sizes and the same work.

A side is a name and a way to build a turn: a call that does the set-up's work once. Both sides of
a task see the same number of images, of the same shape, over the same number of steps.

* Sampling: `num_reverse_steps` steps of a DDPM chain that is respaced out of 1000, to bytes.
* Training: whole steps: batch to floats, noise, forward, backward, clip, AdamW, moving average.
* With classes: the same with labels; sampling is guided, both branches in one batch of 2 B.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ddpm.compute import ComputeDecision, Workload, compile_obstacle, decide_compute
from ddpm.config import DiffusionConfig, SamplingConfig, TrainingConfig
from ddpm.network.unet import UNet
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.guidance import guided
from ddpm.process.sampling import draw, to_uint8
from ddpm.training.data import ImageDataset
from ddpm.training.loop import TrainState, train_steps
from orchestrator.attempts.compute import set_up_process
from orchestrator.sampling.network import build_denoiser
from tests.benchmarks.bench_speed_diffusers import (
    AS_INSTALLED,
    DiffusersOptions,
    their_name,
    their_sampling,
    their_training,
)
from tests.benchmarks.bench_speed_setups import (
    EMA_DECAY,
    GUIDANCE_SCALE,
    LABEL_DROPOUT,
    LEARNING_RATE,
    NUM_IMAGES,
    WEIGHT_DECAY,
    Setup,
    Task,
    device_kind,
    noise_images,
)

OURS, OURS_EAGER = "ddpmctl", "ddpmctl, eager"

Turn = Callable[[], None]
"""Does the work of a set-up once."""


@dataclass(frozen=True)
class Side:
    """One of those that take turns.

    Attributes:
        name: For the table.
        build: Makes the turn of a set-up; everything that is done once is done here.
    """

    name: str
    build: Callable[[Setup], Turn]


def sides(task: Task, with_compile: bool) -> list[Side]:
    """Return who takes part; ours first, then diffusers as installed, then its faster ways."""
    compiles = with_compile and compile_obstacle(device_kind()) is None
    ours = _our_sampling if task == "sampling" else _our_training
    theirs = their_sampling if task == "sampling" else their_training
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
    return found + [Side(their_name(one), partial(theirs, options=one)) for one in tuned]


def network_flops(task: Task, setup: Setup) -> int:
    """Count the operations of our network for one image and one step, backward included.

    With guidance an image of sampling goes through it twice.

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
    passes = setup.images_per_pass // setup.batch_size if task == "sampling" else 1
    return passes * int(counter.get_total_flops())


def _compute(
    setup: Setup, compile_request: bool | Literal["auto"], worth_compiling: bool, batch_size: int
) -> ComputeDecision:
    """Decide as a job with much work does, and set the process up for it."""
    decision = decide_compute(
        Workload(network=setup.unet, images_per_pass=batch_size),
        precision="auto",
        compile_request=compile_request,
        num_threads=torch.get_num_threads(),
        worth_compiling=worth_compiling,
        device_kind=device_kind(),
    )
    set_up_process(decision)
    return decision


def _our_sampling(
    setup: Setup, *, compile_request: bool | Literal["auto"], worth_compiling: bool
) -> Turn:
    model = UNet(setup.unet, setup.image_shape).eval().requires_grad_(False)
    compute = _compute(setup, compile_request, worth_compiling, setup.images_per_pass)
    denoiser: Any = build_denoiser(model, compute)
    diffusion = GaussianDiffusion(DiffusionConfig()).to(device_kind())
    config = SamplingConfig(
        num_steps=setup.num_reverse_steps, microbatch_size=setup.batch_size, seed=1
    )
    if setup.unet.known_classes:
        config = replace(config, guidance_scale=GUIDANCE_SCALE)
        labels = setup.labels(setup.batch_size)
        denoiser = guided(denoiser, diffusion, config, labels, model.null_label)
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
        label_dropout=LABEL_DROPOUT,
    )
    state = TrainState(
        unet_config=setup.unet,
        diffusion_config=DiffusionConfig(),
        config=config,
        image_shape=setup.image_shape,
        compute=_compute(setup, compile_request, worth_compiling, setup.batch_size),
    )
    labels = setup.labels(NUM_IMAGES).cpu().numpy() if setup.unet.known_classes else None
    dataset = ImageDataset(noise_images(setup), np.arange(NUM_IMAGES), labels)

    def turn() -> None:
        for _ in train_steps(state, dataset, until_step=state.step + setup.num_training_steps):
            pass

    return turn
