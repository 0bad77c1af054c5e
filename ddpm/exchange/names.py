"""The names of a U-Net's weights here and in diffusers' UNet2DModel: they map one to one.

Only attention's q, k and v are one matrix here and three there.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ddpm.errors import ForeignModelError

_PREFIXES = (
    (r"embedding1\.", "time_embedding.linear_1."),
    (r"embedding2\.", "time_embedding.linear_2."),
    (r"label_embedding\.", "class_embedding."),
    (r"norm_out\.", "conv_norm_out."),
    (r"middle1\.block\.", "mid_block.resnets.0."),
    (r"middle1\.attention\.", "mid_block.attentions.0."),
    (r"middle2\.block\.", "mid_block.resnets.1."),
    (r"(down|up)\.(\d+)\.stages\.(\d+)\.block\.", r"\1_blocks.\2.resnets.\3."),
    (r"(down|up)\.(\d+)\.stages\.(\d+)\.attention\.", r"\1_blocks.\2.attentions.\3."),
    (r"(down|up)\.(\d+)\.(down|up)sample\.", r"\1_blocks.\2.\3samplers.0."),
)
_OF_BLOCKS = {"embedding": "time_emb_proj", "shortcut": "conv_shortcut"}
_OF_ATTENTION = {"norm": "group_norm", "projection": "to_out.0"}
_AUGMENT = "augment_embedding"
_QKV = ("to_q", "to_k", "to_v")
# As files before diffusers 0.16 call them.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def name_there(name: str) -> tuple[str, ...]:
    """Return the names in diffusers of one of our weights: three for q, k and v together."""
    for pattern, prefix in _PREFIXES:
        match = re.match(pattern, name)
        if match is None:
            continue
        begin, rest = match.expand(prefix), name[match.end() :]
        layer, _, end = rest.rpartition(".")
        if ".attentions." in begin:
            if layer == "qkv":
                return tuple(f"{begin}{part}.{end}" for part in _QKV)
            layer = _OF_ATTENTION[layer]
        elif ".resnets." in begin:
            layer = _OF_BLOCKS.get(layer, layer)
        return (f"{begin}{layer}.{end}" if layer else f"{begin}{end}",)
    return (name,)  # conv_in and conv_out


def weights_there(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our weights under diffusers' names, each of them contiguous."""
    found = {}
    for name, tensor in tensors.items():
        if name == _AUGMENT:  # images are drawn as if nothing had been done to them
            continue
        names = name_there(name)
        for other, part in zip(names, tensor.chunk(len(names)), strict=True):
            found[other] = part.contiguous()
    return found


def weights_here(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Return diffusers' weights under our names, in float32.

    Args:
        tensors: By their names there, old or new.
        names: All of ours.

    Raises:
        ForeignModelError: A weight is missing, or one is there that has no name here.
    """
    theirs = {_newer(name): tensor for name, tensor in tensors.items()}
    wanted = {name: name_there(name) for name in names}
    for other in sorted({part for parts in wanted.values() for part in parts} ^ theirs.keys()):
        what = "has an unknown weight" if other in theirs else "lacks the weight"
        raise ForeignModelError("weights", f"{what} {other}")
    return {
        name: torch.cat([theirs[part] for part in parts]).float() for name, parts in wanted.items()
    }


def _newer(name: str) -> str:
    parts = name.split(".")
    if "attentions" in parts and parts[-2] in _OLD_ATTENTION:
        parts[-2] = _OLD_ATTENTION[parts[-2]]
    return ".".join(parts)
