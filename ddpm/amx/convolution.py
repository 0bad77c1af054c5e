"""Convolutions of maps, and the gradient of what is convolved, which is a convolution too."""

import ctypes

import torch
from torch import Tensor

from ddpm.amx.kernels import load_kernels
from ddpm.amx.maps import CHANNELS, IMAGES, empty_maps, map_parts
from ddpm.amx.structs import (
    ActivationGradientStruct,
    ActivationStruct,
    ConvolutionStruct,
    GeometryStruct,
    address,
)

_CHUNK_ROWS = 8  # summed up apart from others; even, so that a doubling's phases fit


def convolve(
    values: tuple[Tensor, ...],
    weights: Tensor,
    geometry: GeometryStruct,
    size: tuple[int, int],
    *,
    activation: ActivationStruct | None = None,
    by_image: bool = False,
    summed: bool = True,
    bias: Tensor | None = None,
    embedding: Tensor | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Convolve maps.

    Args:
        values: Their parts.
        weights: (C_out / 32, C_in / 32, taps, 2, 512) bfloat16.
        geometry: Where the taps lie.
        size: Height and width of the output.
        activation: What happens to the maps first.
        by_image: How the output is laid out.
        summed: Whether a group norm follows, which needs the sums; without, they are empty.
        bias: (C_out,) float32, added.
        embedding: (images, C_out) float32, added to all pixels.
        residual: Maps like the output, as tiles, added.

    Returns:
        The output, (blocks, C_out / 32, H, W, 16, 32) bfloat16; (chunks, blocks, 2, 16, C_out)
        float32, its sums and those of its squares.
    """
    convolution, output, sums = _describe(values, weights, geometry, size, by_image)
    if not summed:
        sums = sums.new_empty(0)
        convolution.sums = None
    if activation is not None:
        convolution.activation = ctypes.pointer(activation)
    convolution.bias = address(bias)
    convolution.embedding = address(embedding)
    convolution.residual = address(residual)
    load_kernels().convolve_maps(ctypes.byref(convolution))
    return output, sums


def convolve_gradient(
    grad_y: Tensor,
    weights: Tensor,
    geometry: GeometryStruct,
    values: tuple[Tensor, ...],
    activation: ActivationStruct,
) -> tuple[Tensor, Tensor]:
    """Take a gradient back through a convolution, dropout and SiLU.

    Args:
        grad_y: Of the convolution's output.
        weights: Transposed: (C_in / 32, C_out / 32, taps, 2, 512) bfloat16.
        geometry: Of the gradient.
        values: The parts of what was activated and convolved.
        activation: What happened to them.

    Returns:
        The gradient of the normalised input, (blocks, C_in / 32, H, W, 16, 32) bfloat16; its sums,
        and those of its products with `values`, as those of `convolve`.
    """
    size = values[0].shape[2], values[0].shape[3]
    convolution, grad_z, sums = _describe((grad_y,), weights, geometry, size)
    gradient = ActivationGradientStruct(activated=map_parts(values), activation=activation)
    load_kernels().convolve_gradient(ctypes.byref(convolution), ctypes.byref(gradient))
    return grad_z, sums


def _describe(
    values: tuple[Tensor, ...],
    weights: Tensor,
    geometry: GeometryStruct,
    size: tuple[int, int],
    by_image: bool = False,
) -> tuple[ConvolutionStruct, Tensor, Tensor]:
    """Return what describes a convolution, and its output and sums, which are not yet computed."""
    blocks, _, in_height, in_width = values[0].shape[:4]
    height, width = size
    out_blocks = weights.shape[0]
    output = empty_maps(blocks, out_blocks, height, width, by_image=by_image)
    sums = torch.empty(-(-height // _CHUNK_ROWS), blocks, 2, IMAGES, out_blocks * CHANNELS)
    convolution = ConvolutionStruct(
        input=map_parts(values),
        weights=weights.data_ptr(),
        geometry=ctypes.pointer(geometry),
        num_blocks=blocks,
        in_height=in_height,
        in_width=in_width,
        height=height,
        width=width,
        out_channel_blocks=out_blocks,
        chunk_rows=_CHUNK_ROWS,
        output=output.data_ptr(),
        output_by_image=by_image,
        sums=sums.data_ptr(),
    )
    return convolution, output, sums
