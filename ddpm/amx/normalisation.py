"""Group norm of maps, from the sums that convolutions leave, and its gradient."""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.amx.kernels import load_kernels
from ddpm.amx.maps import CHANNELS, IMAGES, map_parts
from ddpm.amx.structs import NormStruct, PartSumsStruct, address


@dataclass(frozen=True)
class GroupNorm:
    """A group norm: what `torch.nn.GroupNorm` holds, its weight and bias (C,) in float32."""

    num_groups: int
    epsilon: float
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Normalised:
    """The group norm of a layer's input: (images, C) float32 each."""

    means: Tensor
    inverse_deviations: Tensor
    scale: Tensor
    shift: Tensor


def normalise(norm: GroupNorm, values: Tensor, sums: tuple[Tensor, ...]) -> Normalised:
    """Compute what normalises maps.

    Args:
        norm: Of all their channels.
        values: The maps, or the first part of them.
        sums: Of each part; (chunks, blocks, 2, 16, C) float32.
    """
    tables = torch.empty(4, values.shape[0] * IMAGES, len(norm.weight))
    load_kernels().norm_coefficients(
        ctypes.byref(_struct(norm, values)), _part_sums(sums), *map(address, tables)
    )
    return Normalised(*tables)


def norm_gradient(
    norm: GroupNorm,
    normalised: Normalised,
    values: tuple[Tensor, ...],
    grad_z: Tensor,
    sums: Tensor,
    others: tuple[Tensor | None, ...],
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Return the gradients of the parts of maps, and of the norm's weight and bias.

    Args:
        norm: The group norm.
        normalised: What it was.
        values: The parts.
        grad_z: Gradient of the normalised maps.
        sums: Of it, and of its products with the maps.
        others: Further gradients of the parts, to be added.
    """
    kernels, blocks = load_kernels(), values[0].shape[0]
    tables = torch.empty(4, blocks * IMAGES, len(norm.weight))
    slopes, offsets, grad_weight, grad_bias = tables
    kernels.norm_gradient_coefficients(
        ctypes.byref(_struct(norm, values[0])),
        _part_sums((sums,)),
        address(normalised.means),
        address(normalised.inverse_deviations),
        *map(address, tables),
    )
    grads_x = tuple(torch.empty_like(part) for part in values)
    others = tuple(None if other is None else other.contiguous() for other in others)
    kernels.norm_gradient(
        ctypes.byref(map_parts(values)),
        address(grad_z),
        address(normalised.scale),
        address(slopes),
        address(offsets),
        blocks,
        _addresses(others),
        _addresses(grads_x),
    )
    return grads_x, grad_weight.sum(dim=0), grad_bias.sum(dim=0)


def image_sums(maps: Tensor) -> Tensor:
    """Sum maps over pixels: (images, C) float32."""
    blocks, channel_blocks, height, width = maps.shape[:4]
    sums = torch.empty(blocks, 2, IMAGES, channel_blocks * CHANNELS)
    load_kernels().sum_maps(address(maps), blocks, height * width, channel_blocks, address(sums))
    return sums[:, 0].flatten(0, 1)


def _struct(norm: GroupNorm, values: Tensor) -> NormStruct:
    return NormStruct(
        num_blocks=values.shape[0],
        num_pixels=values.shape[2] * values.shape[3],
        num_groups=norm.num_groups,
        epsilon=norm.epsilon,
        weight=norm.weight.data_ptr(),
        bias=norm.bias.data_ptr(),
    )


def _addresses(parts: tuple[Tensor | None, ...]) -> "ctypes.Array[ctypes.c_void_p]":
    return (ctypes.c_void_p * 2)(*map(address, parts))


def _part_sums(sums: tuple[Tensor, ...]) -> "ctypes.Array[PartSumsStruct]":
    structs = (PartSumsStruct * 2)()
    for struct, tensor in zip(structs, sums, strict=False):
        struct.sums = tensor.data_ptr()
        struct.num_chunks, struct.num_channels = tensor.shape[0], tensor.shape[4]
    return structs
