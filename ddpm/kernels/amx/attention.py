"""Attention of every pixel of maps to every other, on tiles."""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ddpm.kernels.amx.kernels import load_kernels
from ddpm.kernels.amx.maps import CHANNELS, IMAGES, empty_maps, pixels_of_tiles, tiles_of_pixels
from ddpm.kernels.amx.program import call_function, call_kernel
from ddpm.kernels.amx.structs import AttentionGradientStruct, AttentionStruct, address
from ddpm.network.layers import attention

_ROWS = 16  # of a tile register


def attend(qkv: Tensor, num_heads: int) -> Tensor:
    """Return softmax(q k^T / sqrt(D)) v.

    Args:
        qkv: (blocks, 3 C / 32, H, W, 16, 32) bfloat16, by image: the channels of q, of k, of v.
        num_heads: Divides C; each head has D = C / num_heads channels.

    Returns:
        (blocks, C / 32, H, W, 16, 32) bfloat16.
    """
    channel_blocks, height, width = qkv.shape[1:4]
    num_channels = channel_blocks // 3 * CHANNELS
    if num_channels // num_heads % CHANNELS != 0 or height * width % _ROWS != 0:
        if torch.is_grad_enabled():
            return _attended_by_torch(qkv, num_heads)
        output = _empty_output(qkv)
        call_function(lambda: output.copy_(_attended_by_torch(qkv, num_heads)), (qkv,))
        return output
    if torch.is_grad_enabled():
        attended: Tensor = _AttentionFunction.apply(qkv, num_heads)  # type: ignore[no-untyped-call]
        return attended
    output = _empty_output(qkv)
    call_kernel(_describe(qkv, output, None, num_heads), (qkv,))
    return output


def _attended_by_torch(qkv: Tensor, num_heads: int) -> Tensor:
    height, width = qkv.shape[2:4]
    pixels = pixels_of_tiles(qkv)
    parts = pixels.view(*pixels.shape[:2], 3, num_heads, -1)
    q, k, v = parts.permute(2, 0, 3, 1, 4)  # each (B, heads, H*W, D)
    return tiles_of_pixels(attention(q, k, v).transpose(1, 2).flatten(2), height, width)


class _AttentionFunction(torch.autograd.Function):
    """`attend`; of the softmax only the logarithms of its sums are kept for the gradient."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, num_heads: int) -> Tensor:
        blocks, _, height, width = qkv.shape[:4]
        output = _empty_output(qkv)
        logarithms = torch.empty(blocks * IMAGES, num_heads, height * width)
        load_kernels().attend(ctypes.byref(_describe(qkv, output, logarithms, num_heads)))
        ctx.num_heads = num_heads
        ctx.save_for_backward(qkv, output, logarithms)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        qkv, output, logarithms = ctx.saved_tensors
        grad_output = grad_output.contiguous()
        gradient = empty_maps(*qkv.shape[:4])
        struct = AttentionGradientStruct(
            attention=_describe(qkv, output, logarithms, ctx.num_heads),
            grad_output=address(grad_output),
            gradient=address(gradient),
        )
        load_kernels().attention_gradient(ctypes.byref(struct))
        return gradient, None


def _empty_output(qkv: Tensor) -> Tensor:
    blocks, channel_blocks, height, width = qkv.shape[:4]
    return empty_maps(blocks, channel_blocks // 3, height, width)


def _describe(
    qkv: Tensor, output: Tensor, logarithms: Tensor | None, num_heads: int
) -> AttentionStruct:
    blocks, channel_blocks, height, width = qkv.shape[:4]
    return AttentionStruct(
        queries_keys_values=address(qkv),
        output=address(output),
        logarithms=address(logarithms),
        num_blocks=blocks,
        num_pixels=height * width,
        num_heads=num_heads,
        num_channels=channel_blocks // 3 * CHANNELS,
    )
