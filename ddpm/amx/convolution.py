"""A convolution with what lies before and behind it in a layer, on tiles.

Group norm, SiLU and dropout make its input; bias, timestep embedding and residual are added to its
output, and the sums that the next group norm needs are taken of it. Between two convolutions every
value is read once and written once.
"""

import ctypes
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ddpm.amx.geometry import (
    ConvolutionKind,
    forward_geometry,
    gradient_geometry,
    kernel_size,
    output_size,
    summed_taps,
    weight_taps,
)
from ddpm.amx.library import (
    ActivationGradientStruct,
    ActivationStruct,
    ConvolutionStruct,
    DropoutStruct,
    GeometryStruct,
    MapsStruct,
    NormStruct,
    PartSumsStruct,
    WeightGradientStruct,
    WeightLayoutStruct,
    address,
    load_kernels,
)
from ddpm.amx.maps import CHANNELS, IMAGES, Maps, are_by_image, empty_maps
from ddpm.dropout import Dropout

_CHUNK_ROWS = 8  # summed up apart from others; even, so that a doubling's phases fit


class Layer:
    """A convolution of a model and its surroundings.

    Args:
        kind: Of convolution.
        module: Has its weight and bias; a linear layer is a "point".
        norm: What its input is normalised by, if anything.
        activated: Whether SiLU follows the group norm.
        dropout: What follows them, if anything.
        frozen: The weights never change, so they are packed once.
    """

    def __init__(
        self,
        kind: ConvolutionKind,
        module: nn.Conv2d | nn.Linear,
        *,
        norm: nn.GroupNorm | None = None,
        activated: bool = True,
        dropout: Dropout | None = None,
        frozen: bool = False,
    ) -> None:
        self.kind = kind
        self.module = module
        self.norm = norm
        self.activated = activated
        self.dropout = dropout
        self.out_channels, self.in_channels = module.weight.shape[:2]
        if norm is not None:  # in float32 they are the parameters themselves
            self.norm_weight, self.norm_bias = norm.weight.detach().float(), norm.bias.detach().float()
        self._frozen: tuple[Tensor, Tensor] | None = None
        if frozen:
            with torch.no_grad():
                self._frozen = self.packed_weights(), self.padded_bias()

    def __call__(
        self,
        *inputs: Maps,
        embedding: Tensor | None = None,
        residual: Tensor | None = None,
        by_image: bool = False,
    ) -> Maps:
        """Convolve.

        Args:
            inputs: Maps, or two whose channels follow each other.
            embedding: (images, C_out) float32, added to all pixels of an image.
            residual: Added; like the values that come out.
            by_image: How these are laid out.
        """
        module, norm = self.module, self.norm
        return Maps(
            *_Layer.apply(  # type: ignore[no-untyped-call]
                self,
                by_image,
                module.weight,
                module.bias,
                embedding,
                residual,
                norm.weight if norm else None,
                norm.bias if norm else None,
                *(part.sums for part in inputs),
                *(part.values for part in inputs),
            )
        )

    def forward_weights(self) -> tuple[Tensor, Tensor]:
        """Return the weights as tiles, and the bias (C_out padded to 32s,) float32."""
        return self._frozen or (self.packed_weights(), self.padded_bias())

    def packed_weights(self) -> Tensor:
        """Return the weights as tiles for the forward pass."""
        weight = self.module.weight.detach().float()
        if self.kind != "up":
            return _pack(weight)
        # In float64, which autocast leaves alone.
        return _pack((weight.flatten(2).double() @ summed_taps()).float())

    def transposed_weights(self) -> Tensor:
        """Return the weights as tiles for the gradient of the input."""
        return _pack(self.module.weight.detach().float().transpose(0, 1))

    def padded_bias(self) -> Tensor:
        """Return the bias, and zeros up to a multiple of 32 channels."""
        bias = cast(Tensor, self.module.bias).detach().float()
        return nn.functional.pad(bias, (0, -len(bias) % CHANNELS))


@dataclass(frozen=True)
class _Normalised:
    """The group norm of a layer's input: (images, C) float32 each."""

    means: Tensor
    inverse_deviations: Tensor
    scale: Tensor
    shift: Tensor


class _Layer(torch.autograd.Function):
    """What a `Layer` does; the activated input is computed anew for the gradient, not kept."""

    @staticmethod
    def forward(
        ctx: Any,
        layer: Layer,
        by_image: bool,
        weight: Tensor,
        bias: Tensor,
        embedding: Tensor | None,
        residual: Tensor | None,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        *parts: Tensor,
    ) -> tuple[Tensor, Tensor]:
        sums, values = parts[: len(parts) // 2], parts[len(parts) // 2 :]
        normalised = activation = None
        if layer.norm is not None:
            normalised = _normalised(layer, values[0], sums)
            activation = _activation(layer, normalised)
        weights, padded_bias = layer.forward_weights()
        y, y_sums = _convolved(
            values,
            weights,
            forward_geometry(layer.kind),
            output_size(layer.kind, *values[0].shape[2:4]),
            activation=activation,
            by_image=by_image,
            bias=padded_bias,
            embedding=embedding,
            residual=residual,
        )
        ctx.layer = layer
        ctx.normalised, ctx.activation = normalised, activation
        ctx.save_for_backward(*values)
        ctx.mark_non_differentiable(y_sums)
        ctx.set_materialize_grads(False)
        return y, y_sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, _: None) -> tuple[Tensor | None, ...]:
        layer, normalised, activation = ctx.layer, ctx.normalised, ctx.activation
        values = ctx.saved_tensors
        grad_y = grad_y.contiguous()
        image_sums = _image_sums(grad_y)
        grad_weight = _weight_gradient(layer, values, activation, grad_y)
        grads_x: tuple[Tensor | None, ...] = (None,) * len(values)
        grad_norm_weight = grad_norm_bias = None
        if normalised is not None:
            grads_x, grad_norm_weight, grad_norm_bias = _norm_gradient(
                layer, normalised, activation, values, grad_y
            )
        elif any(ctx.needs_input_grad[8 + len(values) :]):
            grads_x = _input_gradient(layer, values, grad_y)
        return (
            None,
            None,
            grad_weight,
            image_sums.sum(dim=0)[: layer.out_channels],
            image_sums if ctx.needs_input_grad[4] else None,
            grad_y if ctx.needs_input_grad[5] else None,
            grad_norm_weight,
            grad_norm_bias,
            *(None for _ in values),
            *grads_x,
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


def _maps(values: tuple[Tensor, ...]) -> MapsStruct:
    struct = MapsStruct(
        num_pixels=values[0].shape[2] * values[0].shape[3], by_image=are_by_image(values[0])
    )
    for part, tensor in enumerate(values):
        struct.parts[part] = tensor.data_ptr()
        struct.channel_blocks[part] = tensor.shape[1]
    return struct


def _dropout(module: Dropout | None) -> DropoutStruct:
    """Return the masks that a dropout layer takes now."""
    if module is None or not module.training or module.probability == 0.0:
        return DropoutStruct()
    first_key, second_key, first_image = module.key.tolist()
    return DropoutStruct(
        key=(first_key, second_key),
        first_image=first_image,
        threshold=module.threshold,
        factor=1.0 / (1.0 - module.probability),
    )


def _activation(layer: Layer, normalised: _Normalised) -> ActivationStruct:
    """Return what happens to a layer's input now; `normalised` has to outlive it."""
    return ActivationStruct(
        scale=normalised.scale.data_ptr(),
        shift=normalised.shift.data_ptr(),
        has_silu=layer.activated,
        dropout=_dropout(layer.dropout),
    )


def _norm(layer: Layer, values: Tensor) -> NormStruct:
    norm = cast(nn.GroupNorm, layer.norm)
    return NormStruct(
        num_blocks=values.shape[0],
        num_pixels=values.shape[2] * values.shape[3],
        num_groups=norm.num_groups,
        epsilon=norm.eps,
        weight=layer.norm_weight.data_ptr(),
        bias=layer.norm_bias.data_ptr(),
    )


def _part_sums(sums: tuple[Tensor, ...]) -> "ctypes.Array[PartSumsStruct]":
    structs = (PartSumsStruct * 2)()
    for struct, tensor in zip(structs, sums, strict=False):
        struct.sums = tensor.data_ptr()
        struct.num_chunks, struct.num_channels = tensor.shape[0], tensor.shape[4]
    return structs


def _normalised(layer: Layer, values: Tensor, sums: tuple[Tensor, ...]) -> _Normalised:
    tables = torch.empty(4, values.shape[0] * IMAGES, layer.in_channels)
    load_kernels().norm_coefficients(
        ctypes.byref(_norm(layer, values)), _part_sums(sums), *map(address, tables)
    )
    return _Normalised(*tables)


def _convolution(
    values: tuple[Tensor, ...],
    weights: Tensor,
    geometry: GeometryStruct,
    size: tuple[int, int],
    by_image: bool = False,
) -> tuple[ConvolutionStruct, Tensor, Tensor]:
    """Return what describes a convolution, its output and the sums of that, neither yet computed."""
    blocks, _, in_height, in_width = values[0].shape[:4]
    height, width = size
    out_blocks = weights.shape[0]
    output = empty_maps(blocks, out_blocks, height, width, by_image=by_image)
    sums = torch.empty(-(-height // _CHUNK_ROWS), blocks, 2, IMAGES, out_blocks * CHANNELS)
    convolution = ConvolutionStruct(
        input=_maps(values),
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


def _convolved(
    values: tuple[Tensor, ...],
    weights: Tensor,
    geometry: GeometryStruct,
    size: tuple[int, int],
    *,
    activation: ActivationStruct | None = None,
    by_image: bool = False,
    bias: Tensor | None = None,
    embedding: Tensor | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    convolution, output, sums = _convolution(values, weights, geometry, size, by_image)
    if activation is not None:
        convolution.activation = ctypes.pointer(activation)
    convolution.bias = address(bias)
    convolution.embedding = address(embedding)
    convolution.residual = address(residual)
    load_kernels().convolve_maps(ctypes.byref(convolution))
    return output, sums


def _image_sums(maps: Tensor) -> Tensor:
    """Sum maps over pixels: (images, C) float32."""
    blocks, channel_blocks, height, width = maps.shape[:4]
    sums = torch.empty(blocks, 2, IMAGES, channel_blocks * CHANNELS)
    load_kernels().sum_maps(
        address(maps), blocks, height * width, channel_blocks, address(sums)
    )
    return sums[:, 0].flatten(0, 1)


def _input_gradient(
    layer: Layer, values: tuple[Tensor, ...], grad_y: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of what is convolved as it comes."""
    gradient, _ = _convolved(
        (grad_y,),
        layer.transposed_weights(),
        gradient_geometry(layer.kind),
        (values[0].shape[2], values[0].shape[3]),
    )
    if len(values) == 1:
        return (gradient,)
    parts = gradient.split([part.shape[1] for part in values], dim=1)
    return tuple(part.contiguous() for part in parts)


def _norm_gradient(
    layer: Layer,
    normalised: _Normalised,
    activation: ActivationStruct,
    values: tuple[Tensor, ...],
    grad_y: Tensor,
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Return the gradients of inputs that are normalised, and of the norm's weight and bias."""
    kernels = load_kernels()
    blocks, _, height, width = values[0].shape[:4]
    # Both outlive the call: what it is given are addresses.
    weights = layer.transposed_weights()
    convolution, grad_z, sums = _convolution(
        (grad_y,), weights, gradient_geometry(layer.kind), (height, width)
    )
    gradient = ActivationGradientStruct(
        activated=_maps(values), activation=activation
    )
    kernels.convolve_gradient(ctypes.byref(convolution), ctypes.byref(gradient))
    slopes, offsets, grad_weight, grad_bias = torch.empty(4, blocks * IMAGES, layer.in_channels)
    kernels.norm_gradient_coefficients(
        ctypes.byref(_norm(layer, values[0])),
        _part_sums((sums,)),
        address(normalised.means),
        address(normalised.inverse_deviations),
        *map(address, (slopes, offsets, grad_weight, grad_bias)),
    )
    grads_x = tuple(torch.empty_like(part) for part in values)
    kernels.norm_gradient(
        ctypes.byref(_maps(values)),
        address(grad_z),
        address(normalised.scale),
        address(slopes),
        address(offsets),
        blocks,
        address(grads_x[0]),
        address(grads_x[-1]),
    )
    return grads_x, grad_weight.sum(dim=0), grad_bias.sum(dim=0)


def _weight_gradient(
    layer: Layer,
    values: tuple[Tensor, ...],
    activation: ActivationStruct | None,
    grad_y: Tensor,
) -> Tensor:
    """Return the gradient of the weights, like them."""
    blocks, _, in_height, in_width = values[0].shape[:4]
    out_blocks, height, width = grad_y.shape[1:4]
    taps = weight_taps(layer.kind)
    columns = width + width % 2
    rows = 2 * in_height if taps.doubled else in_height
    in_blocks = sum(part.shape[1] for part in values)
    tile = IMAGES * CHANNELS
    gradient_scratch = grad_y.new_empty(blocks * height * out_blocks * columns * tile)
    input_scratch = grad_y.new_empty(
        taps.num_planes * blocks * rows * in_blocks * (columns + 2) * tile
    )
    result = torch.zeros_like(layer.module.weight)
    size = kernel_size(layer.kind)
    gradient = WeightGradientStruct(
        input=_maps(values),
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
        kernel_height=size,
        kernel_width=size,
        taps=taps.taps,
        gradient_scratch=gradient_scratch.data_ptr(),
        input_scratch=input_scratch.data_ptr(),
        layout=_weight_layout(result),
        weights=result.data_ptr(),
    )
    if activation is not None:
        gradient.activation = ctypes.pointer(activation)
    load_kernels().add_weight_gradient(ctypes.byref(gradient))
    return result
