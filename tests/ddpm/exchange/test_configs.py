"""The settings of models here and in diffusers."""

from dataclasses import replace
from typing import Any

import pytest

from ddpm.config import DiffusionConfig, UNetConfig
from ddpm.errors import ForeignModelError
from ddpm.exchange.networks import check_groups, unet_here, unet_there
from ddpm.exchange.schedulers import betas_there, diffusion_here, scheduler_there
from ddpm.network.unet import UNet
from ddpm.process.schedule import build_schedule

SMALL = UNetConfig(
    channels=32, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,)
)
# As google/ddpm-cifar10-32 has it.
GOOGLE: dict[str, Any] = {
    "_class_name": "UNet2DModel",
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [128, 256, 256, 256],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 32,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}


def test_the_model_of_ho_is_read_as_our_default() -> None:
    """The published weights are those of the network whose sizes are the defaults here."""
    config, shape = unet_here(GOOGLE, None)
    assert shape == (3, 32, 32)
    assert config == replace(UNetConfig(), dropout=0.0)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, num_classes=5, norm_eps=1e-5, dropout=0.2),
        replace(SMALL, attention_head_dim=8),
        replace(SMALL, attention_resolutions=()),
    ],
)
def test_sizes_come_back_as_they_went(config: UNetConfig) -> None:
    """Each field that a network has here has one there."""
    model = UNet(config, (1, 8, 16))
    there = unet_there(model)
    check_groups(there, model)
    back, shape = unet_here(there, config.known_classes or None)
    assert (back, shape) == (config, (1, 8, 16))


def test_heads_of_one_number_go_out_where_all_levels_that_attend_are_as_wide() -> None:
    """UNet2DModel has one size of a head; four heads of two widths are two sizes."""
    same = replace(SMALL, num_heads=4)  # attends at 64 channels alone
    assert unet_there(UNet(same, (1, 8, 8)))["attention_head_dim"] == 16
    two = replace(same, attention_resolutions=(4, 8))
    with pytest.raises(ForeignModelError, match=r"model\.num_heads"):
        unet_there(UNet(two, (1, 8, 8)))


def test_norms_of_several_numbers_of_groups_stay_here() -> None:
    """UNet2DModel has one number of groups: 48 channels have 24 here, and 96 have 32."""
    with pytest.raises(ForeignModelError, match=r"model\.channels"):
        unet_there(UNet(replace(SMALL, channels=48), (1, 8, 8)))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"flip_sin_to_cos": True, "freq_shift": 0}, "freq_shift is 0 .*flip_sin_to_cos is True"),
        ({"out_channels": 6}, "learned variance"),
        ({"sample_size": None}, "sample_size"),
        ({"block_out_channels": [128, 192, 256, 256]}, "block_out_channels"),
        ({"down_block_types": ["ResnetDownsampleBlock2D"] * 4}, "ResnetDownsampleBlock2D"),
        ({"up_block_types": ["UpBlock2D"] * 4}, "same levels"),
        ({"num_class_embeds": 11}, "--last-class-is-none"),
        ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
    ],
)
def test_what_the_network_here_does_not_have_is_named(change: dict[str, Any], named: str) -> None:
    """Each would be silently another network."""
    with pytest.raises(ForeignModelError, match=named):
        unet_here({**GOOGLE, **change}, None)


@pytest.mark.parametrize("betas", ["linear", "cosine", "sigmoid", "scaled_linear"])
@pytest.mark.parametrize(("prediction", "rescaled"), [("epsilon", False), ("v", True)])
def test_a_diffusion_comes_back_with_its_betas(betas: Any, prediction: Any, rescaled: bool) -> None:
    """Those without a name there go out as numbers."""
    for steps in (50, 1000):
        config = DiffusionConfig(
            num_timesteps=steps,
            betas=betas,
            prediction=prediction,
            rescale_zero_snr=rescaled,
            variance="fixed_small",
        )
        there = scheduler_there(config)
        assert (there["trained_betas"] is None) == (betas != "sigmoid" and not rescaled)
        error = (betas_there(there) - build_schedule(config).betas).abs().max()
        assert float(error) < 1e-12
        assert diffusion_here(there) == config


@pytest.mark.parametrize(
    ("change", "named"),
    [({"prediction": "mean"}, "diffusion.prediction"), ({"variance": "learned"}, "variance")],
)
def test_what_no_scheduler_takes_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    """The folder would load, and draw something else."""
    with pytest.raises(ForeignModelError, match=named):
        scheduler_there(replace(DiffusionConfig(), **change))


def test_betas_of_no_schedule_here_are_refused() -> None:
    """They would be taken for the nearest ones, and the images were a little wrong."""
    with pytest.raises(ForeignModelError, match="the nearest"):
        diffusion_here({"num_train_timesteps": 1000, "beta_end": 0.03})
