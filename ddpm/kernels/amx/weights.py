"""Weights as the kernels take them."""

import ctypes

import torch
from torch import Tensor

from ddpm.kernels.amx.geometry import ConvolutionKind, summed_taps
from ddpm.kernels.amx.kernels import load_kernels
from ddpm.kernels.amx.maps import CHANNELS, IMAGES
from ddpm.kernels.amx.structs import WeightLayoutStruct, address


def convolved_weights(kind: ConvolutionKind, weight: Tensor) -> Tensor:
    """Return the weights that maps are multiplied with in the forward pass.

    Args:
        kind: Of convolution.
        weight: (C_out, C_in, 3, 3), or (C_out, C_in) or (C_out, C_in, 1, 1) of a "point".

    Returns:
        Float32: `weight` itself if it is, or (C_out, C_in, 16) sums of it.
    """
    if kind == "up":  # in float64, which autocast leaves alone
        return (weight.flatten(2).double() @ summed_taps()).float()
    return weight.float()


def packed_weights(kind: ConvolutionKind, weight: Tensor) -> Tensor:
    """Return the same as tiles: (C_out / 32, C_in / 32, taps, 2, 512) bfloat16, zeros beyond."""
    weight = convolved_weights(kind, weight)
    layout = weight_layout(weight)
    packed = torch.empty(
        (
            -(-layout.num_out // CHANNELS),
            -(-layout.num_in // CHANNELS),
            layout.num_taps,
            2,
            IMAGES * CHANNELS,
        ),
        dtype=torch.bfloat16,
    )
    load_kernels().pack_weights(address(weight), ctypes.byref(layout), address(packed))
    return packed


def weight_layout(weight: Tensor) -> WeightLayoutStruct:
    """Describe weights (C_out, C_in, ...), whose taps lie evenly in memory."""
    out_stride, in_stride, *tap_strides = weight.stride()
    return WeightLayoutStruct(
        num_out=weight.shape[0],
        num_in=weight.shape[1],
        num_taps=weight[0, 0].numel(),
        out_stride=out_stride,
        in_stride=in_stride,
        tap_stride=tap_strides[-1] if tap_strides else 0,
    )
