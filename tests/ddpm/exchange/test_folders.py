"""Folders for diffusers and from it; diffusers itself is the referee where it is installed."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm.config import DiffusionConfig
from ddpm.errors import ForeignModelError
from ddpm.exchange.folders import OWN_FILE, read_folder, write_checkpoint, write_folder
from ddpm.exchange.schedulers import scheduler_there
from ddpm.network.unet import timestep_embedding
from ddpm.process.schedule import build_schedule
from ddpm.training.checkpoint import load_model
from tests.support.foreign_models import CLASS_NAMES, write_small_checkpoint

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None,
    reason="diffusers, an extra for benchmarks, is not installed",
)


def _inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, 3, 8, 8, generator=generator), torch.tensor([0, 50, 99])


def test_a_folder_comes_back_as_the_same_model(tmp_path: Path) -> None:
    """Out and in again: the weights to the bit, the classes with their names, the schedule."""
    checkpoint = write_small_checkpoint(tmp_path / "own", num_classes=3)
    write_folder(checkpoint, tmp_path / "out", origin="digits")
    found, model = read_folder(tmp_path / "out")
    assert found.class_names == CLASS_NAMES
    write_checkpoint(found, model, tmp_path / "back", origin={"folder": "out"})
    ours, info = load_model(checkpoint)
    for weights in ("ema", "model"):
        theirs, back = load_model(tmp_path / "back", weights=weights)
        pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
        assert back.diffusion_config == info.diffusion_config
        assert back.unet_config == info.unet_config
        assert back.fixed["class_names"] == list(CLASS_NAMES)


def test_a_pickle_is_named_and_not_opened(tmp_path: Path) -> None:
    """A .bin runs whatever its writer wanted."""
    write_folder(write_small_checkpoint(tmp_path / "own"), tmp_path / "out")
    weights = tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ForeignModelError, match="is a pickle"):
        read_folder(tmp_path / "out")


def test_labels_of_unknown_meaning_are_asked_for(tmp_path: Path) -> None:
    """Whether the last row means no class decides what guidance does."""
    write_folder(write_small_checkpoint(tmp_path / "own", num_classes=3), tmp_path / "out")
    (tmp_path / "out" / OWN_FILE).unlink()
    with pytest.raises(ForeignModelError, match="--last-class-is-none"):
        read_folder(tmp_path / "out")
    found, _ = read_folder(tmp_path / "out", last_class_is_none=True)
    assert found.unet_config.num_classes == 3


def test_a_folder_with_all_at_its_top_is_read(tmp_path: Path) -> None:
    """The published folders are older than subfolders."""
    write_folder(write_small_checkpoint(tmp_path / "own"), tmp_path / "out")
    for part in ("unet", "scheduler"):
        for path in (tmp_path / "out" / part).iterdir():
            path.rename(tmp_path / "out" / path.name)
    found, _ = read_folder(tmp_path / "out")
    assert found.diffusion_config.betas == "cosine"


def test_what_is_no_such_folder_is_told_in_a_line(tmp_path: Path) -> None:
    """A wrong path and a broken file are the two usual mistakes."""
    with pytest.raises(ForeignModelError, match=r"neither unet/config.json nor config.json"):
        read_folder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ForeignModelError, match="can't be read"):
        read_folder(tmp_path)


@needs_diffusers
@pytest.mark.parametrize("num_classes", [0, 3])
def test_diffusers_loads_the_folder_and_predicts_the_same(tmp_path: Path, num_classes: int) -> None:
    """The promise: 3e-5 in float32, and 1e-6 in float64 with one timestep embedding."""
    from diffusers import DDPMPipeline

    checkpoint = write_small_checkpoint(tmp_path / "own", num_classes=num_classes)
    write_folder(checkpoint, tmp_path / "out")
    pipeline = DDPMPipeline.from_pretrained(str(tmp_path / "out"))
    x, t = _inputs()
    labels = torch.tensor([0, 2, 3]) if num_classes else None
    model, _ = load_model(checkpoint)
    with torch.no_grad():
        there = pipeline.unet(x, t, class_labels=labels).sample
        assert there.std() > 0.01
        assert (there - model(x, t, labels)).abs().max() < 3e-5
        pipeline.unet.time_proj = _Sinusoids()
        there = pipeline.unet.double()(x.double(), t, class_labels=labels).sample
        assert (there - model.double()(x, t, labels)).abs().max() < 1e-6


class _Sinusoids(torch.nn.Module):
    """The timestep embedding of this project: that of diffusers has other float32 angles."""

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        return timestep_embedding(t, 32)


@needs_diffusers
def test_a_folder_that_diffusers_saved_is_read(tmp_path: Path) -> None:
    """Whatever its version writes beside what is needed here."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(str(tmp_path))
    found, model = read_folder(tmp_path)
    assert found.unet_config.attention_head_dim == 8
    assert found.unet_config.norm_eps == 1e-5
    x, t = _inputs()
    with torch.no_grad():
        assert (unet(x, t).sample - model(x, t)).abs().max() < 3e-5


@needs_diffusers
@pytest.mark.parametrize("betas", ["linear", "cosine", "sigmoid", "scaled_linear"])
def test_diffusers_scheduler_has_the_same_betas(tmp_path: Path, betas: Any) -> None:
    """In its float32."""
    from diffusers import DDPMScheduler

    config = DiffusionConfig(num_timesteps=200, betas=betas)
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps(scheduler_there(config)))
    scheduler = DDPMScheduler.from_pretrained(str(tmp_path))
    error = (scheduler.betas.double() - build_schedule(config).betas).abs().max()
    assert float(error) < 1e-7
