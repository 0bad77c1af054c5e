"""What the kernels know of a layer and maps of one size, written down once.

A step of a network calls a hundred layers, and between two calls of the kernels the interpreter
finds nothing in the caches: so all that stays is filled in when a size is seen first, and only
addresses after that.
"""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ddpm.kernels.amx.geometry import (
    ConvolutionKind,
    forward_geometry,
    gradient_geometry,
    kernel_size,
    output_size,
    weight_taps,
)
from ddpm.kernels.amx.kernels import load_kernels
from ddpm.kernels.amx.maps import CHANNELS, IMAGES, empty_maps
from ddpm.kernels.amx.program import call_kernel, empty
from ddpm.kernels.amx.structs import (
    DropoutStruct,
    LayerGradientStruct,
    LayerStruct,
    SizesStruct,
    WeightLayoutStruct,
    address,
)
from ddpm.kernels.amx.weights import weight_layout

_CHUNK_ROWS = 8  # summed up apart from others; even, so that a doubling's phases fit


class Parameters(NamedTuple):
    """What a layer computes with.

    Attributes:
        weights: As `convolved_weights` returns them, or packed.
        is_packed: Which of them.
        bias: (C_out,) float32.
        norm_weight: (C_in,) float32, if there is a group norm.
        norm_bias: Like norm_weight.
    """

    weights: Tensor
    is_packed: bool
    bias: Tensor
    norm_weight: Tensor | None
    norm_bias: Tensor | None


class Call(NamedTuple):
    """What a layer is called with.

    Attributes:
        values: The parts of the input, (blocks, C / 32, H, W, 16, 32) bfloat16 each.
        sums: Of each part, (chunks, blocks, 2, 16, C) float32, if there is a group norm.
        embedding: (images, C_out) float32, added to all pixels of an image.
        residual: Maps like the output, as tiles, added.
        dropout: The masks that it takes.
        by_image: How the output is laid out.
        summed: Whether a group norm follows, which needs its sums.
    """

    values: tuple[Tensor, ...]
    sums: tuple[Tensor, ...]
    embedding: Tensor | None
    residual: Tensor | None
    dropout: DropoutStruct
    by_image: bool
    summed: bool


class Computed(NamedTuple):
    """What a layer gave; and what its norm was, (4, images, C_in) float32, if that is kept."""

    values: Tensor
    sums: Tensor
    tables: Tensor | None


class LayerGradients(NamedTuple):
    """The gradients of a layer's inputs, if they were wanted, and parameters but the weight."""

    parts: tuple[Tensor | None, ...]
    embedding: Tensor
    bias: Tensor
    norm_weight: Tensor | None
    norm_bias: Tensor | None


class LayerPlan:
    """Calls the kernels for a layer and input of one size; not by two threads at once.

    Args:
        kind: Of convolution.
        weight: Of the module; `layout` is that of what is convolved with.
        layout: See there.
        norm: What its input is normalised by, if anything.
        activated: Whether SiLU follows the group norm.
        values: The parts of the input.
    """

    def __init__(
        self,
        kind: ConvolutionKind,
        weight: Tensor,
        layout: WeightLayoutStruct,
        norm: nn.GroupNorm | None,
        activated: bool,
        values: tuple[Tensor, ...],
    ) -> None:
        blocks, _, in_height, in_width = values[0].shape[:4]
        height, width = output_size(kind, in_height, in_width)
        self._size = blocks, -(-layout.num_out // CHANNELS), height, width
        self._in_channels = CHANNELS * sum(part.shape[1] for part in values)
        self._num_chunks = -(-height // _CHUNK_ROWS)
        self._struct = LayerStruct(
            sizes=SizesStruct(blocks, in_height, in_width, height, width),
            chunk_rows=_CHUNK_ROWS,
            num_groups=norm.num_groups if norm else 0,
            epsilon=norm.eps if norm else 0.0,
            has_silu=activated,
            layout=layout,
            geometry=ctypes.pointer(forward_geometry(kind)),
        )
        self._struct.input.num_pixels = in_height * in_width
        for part, tensor in enumerate(values):
            self._struct.input.channel_blocks[part] = tensor.shape[1]
            self._struct.input_sums[part].num_channels = CHANNELS * tensor.shape[1]
        taps = weight_taps(kind)
        self._gradient_struct = LayerGradientStruct(
            layout=weight_layout(weight),
            geometry=ctypes.pointer(gradient_geometry(kind)),
            num_planes=taps.num_planes,
            doubled=taps.doubled,
            stride=taps.stride,
            kernel_size=kernel_size(kind),
            taps=taps.taps,
        )

    def compute(
        self, parameters: Parameters, call: Call, *, keeps_tables: bool = False
    ) -> Computed:
        """Compute the output, its sums (empty if nobody needs them), and what the norm was.

        Args:
            parameters: Of the layer.
            call: What it is called with.
            keeps_tables: Whether a gradient follows, which needs to know what the norm was.
        """
        blocks, out_blocks, *_ = self._size
        output = empty_maps(*self._size, by_image=call.by_image)
        num_chunks = self._num_chunks if call.summed else 0
        sums = empty((num_chunks, blocks, 2, IMAGES, out_blocks * CHANNELS), torch.float32)
        tables = None
        if keeps_tables and parameters.norm_weight is not None:
            tables = torch.empty(4, blocks * IMAGES, self._in_channels)
        self._fill(parameters, call, tables)
        struct = self._struct
        struct.output, struct.output_by_image = output.data_ptr(), call.by_image
        struct.output_sums = sums.data_ptr() if call.summed else None
        call_kernel(struct, (*call.values, *call.sums, call.residual))
        return Computed(output, sums, tables)

    def gradients(
        self,
        parameters: Parameters,
        call: Call,
        tables: Tensor | None,
        grad_output: Tensor,
        *,
        others: tuple[Tensor | None, ...],
        wants_inputs: bool,
        grad_weight: Tensor | None,
    ) -> LayerGradients:
        """Compute the gradients.

        Args:
            parameters: As for `compute`, but for the weights: the module's own, float32.
            call: What was called; neither its embedding nor its residual count.
            tables: What the norm was.
            grad_output: Of the output, as tiles.
            others: Further gradients of the parts, as tiles, added to theirs.
            wants_inputs: Whether the parts have gradients.
            grad_weight: Where the gradient of the weight is written; None if it is not wanted.
        """
        blocks, out_blocks, *_ = self._size
        parts = tuple(torch.empty_like(part) if wants_inputs else None for part in call.values)
        grad_embedding = torch.empty(blocks * IMAGES, out_blocks * CHANNELS)
        grad_bias = torch.empty(out_blocks * CHANNELS)
        grad_norm = torch.empty(2, self._in_channels) if tables is not None else None
        self._fill(parameters, call, tables)
        struct = self._gradient_struct
        struct.layer = self._struct
        struct.weights = parameters.weights.data_ptr()
        struct.grad_output = grad_output.data_ptr()
        for part, (other, gradient) in enumerate(zip(others, parts, strict=True)):
            struct.other_gradients[part], struct.grad_inputs[part] = (
                address(other),
                address(gradient),
            )
        struct.grad_weights = address(grad_weight)
        if grad_weight is not None:
            struct.grad_layout = weight_layout(grad_weight)
        struct.grad_embedding, struct.grad_bias = grad_embedding.data_ptr(), grad_bias.data_ptr()
        norm_weight = norm_bias = None
        if grad_norm is not None:
            norm_weight, norm_bias = grad_norm.unbind()
            struct.grad_norm_weight, struct.grad_norm_bias = map(address, (norm_weight, norm_bias))
        load_kernels().compute_layer_gradient(ctypes.byref(struct))
        return LayerGradients(parts, grad_embedding, grad_bias, norm_weight, norm_bias)

    def _fill(self, parameters: Parameters, call: Call, tables: Tensor | None) -> None:
        """Write the addresses of what a call reads down; all of it has to outlive the call."""
        struct = self._struct
        for part, tensor in enumerate(call.values):
            struct.input.parts[part] = tensor.data_ptr()
        if call.sums and parameters.norm_weight is not None:
            for part_sums, tensor in zip(struct.input_sums, call.sums, strict=False):
                part_sums.sums, part_sums.num_chunks = tensor.data_ptr(), tensor.shape[0]
        weights = parameters.weights.data_ptr()
        struct.weights, struct.packed = (None, weights) if parameters.is_packed else (weights, None)
        struct.bias = parameters.bias.data_ptr()
        struct.norm_weight = address(parameters.norm_weight)
        struct.norm_bias = address(parameters.norm_bias)
        struct.tables = address(tables)
        struct.dropout = call.dropout
        struct.embedding, struct.residual = address(call.embedding), address(call.residual)
