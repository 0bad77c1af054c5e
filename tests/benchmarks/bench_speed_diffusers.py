"""diffusers as a side of `bench_speed`: its U-Net at our sizes, as its users sample and train.

"as installed" is what diffusers' own examples do: float32, eager. Its other sides add bfloat16,
channels_last, torch.compile (on a GPU also with CUDA graphs), fused AdamW and a moving average over
lists of tensors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.compute import has_fast_bf16
from ddpm.network.unet_size import count_parameters
from ddpm.process.sampling import to_uint8
from tests.benchmarks.bench_speed_setups import (
    EMA_DECAY,
    GUIDANCE_SCALE,
    LABEL_DROPOUT,
    LEARNING_RATE,
    NUM_IMAGES,
    WEIGHT_DECAY,
    Setup,
    device_kind,
    noise_images,
)

AS_INSTALLED = "diffusers, as installed"


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


def their_name(options: DiffusersOptions) -> str:
    """Return what the table calls it."""
    words = ["bf16" if options.dtype == torch.bfloat16 else "float32"]
    words += ["channels_last"] * options.channels_last + ["compiled"] * options.compiled
    words += ["CUDA graphs"] * options.replayed
    return f"diffusers, {' '.join(words)}"


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
        # The last row means no class.
        num_class_embeds=unet.known_classes + 1 if unet.known_classes else None,
    )
    assert sum(p.numel() for p in model.parameters()) == count_parameters(unet, setup.image_shape)
    return model.to(device_kind())


def _their_scheduler() -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(num_train_timesteps=1000, variance_type="fixed_large")


def their_sampling(setup: Setup, *, options: DiffusersOptions) -> Callable[[], None]:
    """Return a turn of sampling, by its scheduler's loop."""
    model = _their_model(setup).eval().requires_grad_(False)
    model.to(dtype=options.dtype, memory_format=options.memory_format)
    network = options.network(model)
    scheduler = _their_scheduler()
    scheduler.set_timesteps(setup.num_reverse_steps, device=device_kind())
    shape = (setup.batch_size, *setup.image_shape)
    predict = _their_guided(setup, network)

    def turn() -> None:
        with torch.no_grad():
            x = torch.randn(shape, device=device_kind(), dtype=options.dtype)
            x = x.contiguous(memory_format=options.memory_format)
            for t in scheduler.timesteps:
                x = scheduler.step(predict(x, t), t, x).prev_sample
            to_uint8(x.float()).cpu()

    return turn


def _their_guided(setup: Setup, network: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what predicts the noise: with classes guided, as its users write it, in one batch."""
    num_classes = setup.unet.known_classes
    if not num_classes:
        return lambda x, t: network(x, t).sample
    labels = setup.labels(setup.batch_size)
    told = torch.cat([labels, torch.full_like(labels, num_classes)])

    def predict(x: Tensor, t: Tensor) -> Tensor:
        with_label, without = network(torch.cat([x, x]), t, told).sample.chunk(2)
        epsilon: Tensor = without + GUIDANCE_SCALE * (with_label - without)
        return epsilon

    return predict


def _their_batches(setup: Setup, options: DiffusersOptions) -> Iterator[Tensor]:
    """Yield (B, C, H, W) float32 in [-1, 1], on the device."""
    images = torch.from_numpy(noise_images(setup)).permute(0, 3, 1, 2)
    while True:
        for indices in torch.randperm(NUM_IMAGES).split(setup.batch_size):
            batch = images[indices].to(device_kind()).float() / 127.5 - 1.0
            yield batch.contiguous(memory_format=options.memory_format)


def their_training(setup: Setup, *, options: DiffusersOptions) -> Callable[[], None]:
    """Return a turn of training, as its examples write it."""
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
    num_classes = setup.unet.known_classes

    def told(number: int) -> tuple[Tensor, ...]:
        if not num_classes:
            return ()
        dropped = torch.rand(number, device=device_kind()) < LABEL_DROPOUT
        return (setup.labels(number).masked_fill(dropped, num_classes),)

    def step() -> None:
        x_start = next(batches)
        noise = torch.randn_like(x_start)
        t = torch.randint(0, 1000, (len(x_start),), device=device_kind())
        x_t = scheduler.add_noise(x_start, noise, t)
        with torch.autocast(device_kind(), dtype=torch.bfloat16, enabled=is_bf16):
            output = network(x_t, t, *told(len(t))).sample
        F.mse_loss(output.float(), noise).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(parameters)

    def turn() -> None:
        for _ in range(setup.num_training_steps):
            step()

    return turn
