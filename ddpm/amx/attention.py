"""Attention of every pixel of maps to every other, on tiles."""

import ctypes

import torch
from torch import Tensor

from ddpm.amx.kernels import load_kernels
from ddpm.amx.maps import CHANNELS, empty_maps, pixels_of_tiles, tiles_of_pixels
from ddpm.amx.structs import AttentionStruct, address
from ddpm.layers import attention

_ROWS = 16  # of a tile register


def attend(qkv: Tensor, num_heads: int) -> Tensor:
    """Return softmax(q k^T / sqrt(D)) v.

    Args:
        qkv: (blocks, 3 C / 32, H, W, 16, 32) bfloat16, by image: the channels of q, of k, of v.
        num_heads: Divides C; each head has D = C / num_heads channels.

    Returns:
        (blocks, C / 32, H, W, 16, 32) bfloat16, by image or not.
    """
    blocks, channel_blocks, height, width = qkv.shape[:4]
    num_channels = channel_blocks // 3 * CHANNELS
    whole = num_channels // num_heads % CHANNELS == 0 and height * width % _ROWS == 0
    if torch.is_grad_enabled() or not whole:
        pixels = pixels_of_tiles(qkv)
        parts = pixels.view(*pixels.shape[:2], 3, num_heads, num_channels // num_heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each (B, heads, H*W, D)
        return tiles_of_pixels(attention(q, k, v).transpose(1, 2).flatten(2), height, width)
    output = empty_maps(blocks, channel_blocks // 3, height, width, by_image=True)
    struct = AttentionStruct(
        queries_keys_values=address(qkv),
        output=address(output),
        num_blocks=blocks,
        num_pixels=height * width,
        num_heads=num_heads,
        num_channels=num_channels,
    )
    load_kernels().attend(ctypes.byref(struct))
    return output
