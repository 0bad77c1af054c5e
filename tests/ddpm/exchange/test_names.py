"""The names of weights here and in diffusers."""

import pytest
import torch

from ddpm.config import UNetConfig
from ddpm.errors import ForeignModelError
from ddpm.exchange.names import name_there, weights_here, weights_there
from ddpm.network.unet import UNet

CONFIG = UNetConfig(
    channels=32,
    channel_multipliers=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(4,),
    num_classes=3,
)


def test_weights_come_back_to_the_bit_under_their_own_names() -> None:
    """One to one: what goes out and comes in again is the same model, and nothing is left over."""
    tensors = UNet(CONFIG, (1, 8, 8)).state_dict()
    there = weights_there(tensors)
    assert all(tensor.is_contiguous() for tensor in there.values())
    back = weights_here(there, tensors)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("embedding1.weight", "time_embedding.linear_1.weight"),
        ("label_embedding.weight", "class_embedding.weight"),
        ("conv_in.bias", "conv_in.bias"),
        ("norm_out.weight", "conv_norm_out.weight"),
        ("down.1.stages.0.block.embedding.bias", "down_blocks.1.resnets.0.time_emb_proj.bias"),
        ("up.0.stages.2.block.shortcut.weight", "up_blocks.0.resnets.2.conv_shortcut.weight"),
        ("down.0.downsample.conv.weight", "down_blocks.0.downsamplers.0.conv.weight"),
        ("up.0.upsample.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"),
        ("middle1.attention.projection.bias", "mid_block.attentions.0.to_out.0.bias"),
        ("middle2.block.norm2.weight", "mid_block.resnets.1.norm2.weight"),
    ],
)
def test_names_are_those_of_unet2dmodel(here: str, there: str) -> None:
    """Written out, so that a change of the rules is seen without diffusers."""
    assert name_there(here) == (there,)


def test_old_files_call_the_parts_of_attention_otherwise() -> None:
    """google/ddpm-cifar10-32 and its kind are from before the names of today."""
    tensors = UNet(CONFIG, (1, 8, 8)).state_dict()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    there = {}
    for name, tensor in weights_there(tensors).items():
        for new, former in old.items():
            name = name.replace(f".{new}.", f".{former}.")
        there[name] = tensor
    assert any("proj_attn" in name for name in there)
    back = weights_here(there, tensors)
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_a_weight_too_many_or_too_few_is_named() -> None:
    """What cannot be mapped is said: half a model would draw something, and nobody knew."""
    tensors = UNet(CONFIG, (1, 8, 8)).state_dict()
    there = weights_there(tensors)
    with pytest.raises(ForeignModelError, match=r"unknown weight add_embedding\.weight"):
        weights_here({**there, "add_embedding.weight": torch.ones(1)}, tensors)
    del there["conv_in.bias"]
    with pytest.raises(ForeignModelError, match=r"lacks the weight conv_in\.bias"):
        weights_here(there, tensors)
