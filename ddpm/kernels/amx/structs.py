"""The structures that the kernels take, field by field as they are declared in C++.

Pointers are addresses of tensors, which have to outlive the call.
"""

import ctypes
from collections.abc import Mapping

from torch import Tensor

MAX_TAPS = 36


def address(tensor: Tensor | None) -> int | None:
    """Return where a tensor's values begin, for a field or an argument that is a pointer."""
    return None if tensor is None else tensor.data_ptr()


class MapsStruct(ctypes.Structure):
    """`Maps` of tiles.h."""

    _fields_ = (
        ("parts", ctypes.c_void_p * 2),
        ("channel_blocks", ctypes.c_int32 * 2),
        ("num_pixels", ctypes.c_int32),
    )


class DropoutStruct(ctypes.Structure):
    """`Dropout` of activation.h."""

    _fields_ = (
        ("key", ctypes.c_int32 * 2),
        ("first_image", ctypes.c_int32),
        ("threshold", ctypes.c_int32),
        ("factor", ctypes.c_float),
    )


class TapStruct(ctypes.Structure):
    """`Tap` of convolution.h."""

    _fields_ = (("row", ctypes.c_int32), ("column", ctypes.c_int32), ("weights", ctypes.c_int32))


class GeometryStruct(ctypes.Structure):
    """`Geometry` of convolution.h."""

    _fields_ = (
        ("phases", ctypes.c_int32),
        ("stride", ctypes.c_int32),
        ("num_weights", ctypes.c_int32),
        ("num_taps", ctypes.c_int32 * 4),
        ("taps", TapStruct * MAX_TAPS * 4),
    )


class PartSumsStruct(ctypes.Structure):
    """`PartSums` of normalisation.h."""

    _fields_ = (
        ("sums", ctypes.c_void_p),
        ("num_chunks", ctypes.c_int32),
        ("num_channels", ctypes.c_int32),
    )


class WeightLayoutStruct(ctypes.Structure):
    """`WeightLayout` of weights.h."""

    _fields_ = (
        ("num_out", ctypes.c_int32),
        ("num_in", ctypes.c_int32),
        ("num_taps", ctypes.c_int32),
        ("out_stride", ctypes.c_int64),
        ("in_stride", ctypes.c_int64),
        ("tap_stride", ctypes.c_int64),
    )


class GradientTapStruct(ctypes.Structure):
    """`GradientTap` of weight_gradient.h."""

    _fields_ = (("plane", ctypes.c_int32), ("row", ctypes.c_int32), ("column", ctypes.c_int32))


class SizesStruct(ctypes.Structure):
    """`Sizes` of tiles.h."""

    _fields_ = (
        ("num_blocks", ctypes.c_int32),
        ("in_height", ctypes.c_int32),
        ("in_width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
    )


class LayerStruct(ctypes.Structure):
    """`Layer` of layer.cpp."""

    _fields_ = (
        ("input", MapsStruct),
        ("input_sums", PartSumsStruct * 2),
        ("sizes", SizesStruct),
        ("chunk_rows", ctypes.c_int32),
        ("num_groups", ctypes.c_int32),
        ("epsilon", ctypes.c_float),
        ("norm_weight", ctypes.c_void_p),
        ("norm_bias", ctypes.c_void_p),
        ("has_silu", ctypes.c_int32),
        ("dropout", DropoutStruct),
        ("tables", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("packed", ctypes.c_void_p),
        ("layout", WeightLayoutStruct),
        ("geometry", ctypes.POINTER(GeometryStruct)),
        ("bias", ctypes.c_void_p),
        ("embedding", ctypes.c_void_p),
        ("residual", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("output_by_image", ctypes.c_int32),
        ("output_sums", ctypes.c_void_p),
    )


class LayerGradientStruct(ctypes.Structure):
    """`LayerGradient` of layer.cpp."""

    _fields_ = (
        ("layer", LayerStruct),
        ("weights", ctypes.c_void_p),
        ("layout", WeightLayoutStruct),
        ("geometry", ctypes.POINTER(GeometryStruct)),
        ("grad_output", ctypes.c_void_p),
        ("other_gradients", ctypes.c_void_p * 2),
        ("num_planes", ctypes.c_int32),
        ("doubled", ctypes.c_int32),
        ("stride", ctypes.c_int32),
        ("kernel_size", ctypes.c_int32),
        ("taps", ctypes.POINTER(GradientTapStruct)),
        ("grad_inputs", ctypes.c_void_p * 2),
        ("grad_weights", ctypes.c_void_p),
        ("grad_layout", WeightLayoutStruct),
        ("grad_embedding", ctypes.c_void_p),
        ("grad_bias", ctypes.c_void_p),
        ("grad_norm_weight", ctypes.c_void_p),
        ("grad_norm_bias", ctypes.c_void_p),
    )


class AttentionStruct(ctypes.Structure):
    """`Attention` of attention.h."""

    _fields_ = (
        ("queries_keys_values", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("logarithms", ctypes.c_void_p),
        ("num_blocks", ctypes.c_int32),
        ("num_pixels", ctypes.c_int32),
        ("num_heads", ctypes.c_int32),
        ("num_channels", ctypes.c_int32),
    )


class AttentionGradientStruct(ctypes.Structure):
    """`AttentionGradient` of attention_gradient.cpp."""

    _fields_ = (
        ("attention", AttentionStruct),
        ("grad_output", ctypes.c_void_p),
        ("gradient", ctypes.c_void_p),
    )


class CallStruct(ctypes.Structure):
    """`Call` of program.cpp."""

    _fields_ = (
        ("layer", ctypes.POINTER(LayerStruct)),
        ("attention", ctypes.POINTER(AttentionStruct)),
    )


class ProgramStruct(ctypes.Structure):
    """`Program` of program.cpp."""

    _fields_ = (("calls", ctypes.POINTER(CallStruct)), ("num_calls", ctypes.c_int32))


# Those that cross to C++, by the names that they have there.
STRUCTS: Mapping[str, type[ctypes.Structure]] = {
    kind.__name__.removesuffix("Struct"): kind
    for kind in (
        MapsStruct,
        DropoutStruct,
        TapStruct,
        GeometryStruct,
        PartSumsStruct,
        WeightLayoutStruct,
        GradientTapStruct,
        SizesStruct,
        LayerStruct,
        LayerGradientStruct,
        AttentionStruct,
        AttentionGradientStruct,
        CallStruct,
        ProgramStruct,
    )
}
