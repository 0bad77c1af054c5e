"""Weights as the kernels take them, and their gradient."""

import ctypes

import torch
from torch import Tensor

from ddpm.amx.geometry import (
    ConvolutionKind,
    WeightTaps,
    kernel_size,
    summed_taps,
    weight_taps,
)
from ddpm.amx.kernels import load_kernels
from ddpm.amx.maps import CHANNELS, IMAGES, map_parts
from ddpm.amx.structs import (
    ActivationStruct,
    WeightGradientStruct,
    WeightLayoutStruct,
    address,
)


def packed_weights(kind: ConvolutionKind, weight: Tensor) -> Tensor:
    """Return the weights for the forward pass.

    Args:
        kind: Of convolution.
        weight: (C_out, C_in, 3, 3), or (C_out, C_in) or (C_out, C_in, 1, 1) of a "point".

    Returns:
        (C_out / 32, C_in / 32, taps, 2, 512) bfloat16, zeros where there is no channel.
    """
    if kind == "up":  # in float64, which autocast leaves alone
        return _pack((weight.flatten(2).double() @ summed_taps()).float())
    return _pack(weight.float())


def transposed_weights(weight: Tensor) -> Tensor:
    """Return the weights for the gradient of the input: (C_in / 32, C_out / 32, taps, 2, 512)."""
    return _pack(weight.float().transpose(0, 1))


def weight_gradient(
    kind: ConvolutionKind,
    values: tuple[Tensor, ...],
    activation: ActivationStruct | None,
    grad_y: Tensor,
    output: Tensor,
) -> None:
    """Compute the gradient of the weights.

    Args:
        kind: Of convolution.
        values: The parts of the layer's input.
        activation: What happens to it before it is convolved.
        grad_y: Of the output.
        output: The gradient is written there; like the weight, as for `packed_weights`.
    """
    blocks, _, in_height, in_width = values[0].shape[:4]
    out_blocks, height, width = grad_y.shape[1:4]
    taps, size = weight_taps(kind), kernel_size(kind)
    gradient_scratch, input_scratch = _scratch(taps, values, grad_y)
    gradient = WeightGradientStruct(
        input=map_parts(values),
        gradient=grad_y.data_ptr(),
        num_blocks=blocks,
        in_height=in_height,
        in_width=in_width,
        height=height,
        width=width,
        gradient_blocks=out_blocks,
        num_planes=taps.num_planes,
        doubled=taps.doubled,
        stride=taps.stride,
        kernel_size=size,
        taps=taps.taps,
        gradient_scratch=gradient_scratch.data_ptr(),
        input_scratch=input_scratch.data_ptr(),
        layout=_weight_layout(output),
        weights=output.data_ptr(),
    )
    if activation is not None:
        gradient.activation = ctypes.pointer(activation)
    load_kernels().weight_gradient(ctypes.byref(gradient))


def _scratch(taps: WeightTaps, values: tuple[Tensor, ...], grad_y: Tensor) -> tuple[Tensor, Tensor]:
    """Return room for the gradient and the input as they are laid out to be multiplied."""
    blocks, out_blocks, height, width = grad_y.shape[:4]
    rows = values[0].shape[2] * (2 if taps.doubled else 1)
    columns = width + width % 2
    in_blocks = sum(part.shape[1] for part in values)
    tile = IMAGES * CHANNELS
    return (
        grad_y.new_empty(blocks * height * out_blocks * columns * tile),
        grad_y.new_empty(taps.num_planes * blocks * rows * in_blocks * (columns + 2) * tile),
    )


def _pack(weight: Tensor) -> Tensor:
    """Return weights (C_out, C_in, ...) float32, whose taps lie evenly in memory, as tiles."""
    out_channels, in_channels = weight.shape[:2]
    num_taps = weight[0, 0].numel()
    packed = torch.empty(
        (-(-out_channels // CHANNELS), -(-in_channels // CHANNELS), num_taps, 2, IMAGES * CHANNELS),
        dtype=torch.bfloat16,
    )
    layout = _weight_layout(weight)
    load_kernels().pack_weights(address(weight), ctypes.byref(layout), address(packed))
    return packed


def _weight_layout(weight: Tensor) -> WeightLayoutStruct:
    out_stride, in_stride, *tap_strides = weight.stride()
    return WeightLayoutStruct(
        num_out=weight.shape[0],
        num_in=weight.shape[1],
        num_taps=weight[0, 0].numel(),
        out_stride=out_stride,
        in_stride=in_stride,
        tap_stride=tap_strides[-1] if tap_strides else 0,
    )
