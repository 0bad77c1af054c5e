"""The kernels of this package: how they are compiled, found again and called.

They are a few hundred lines of C++ with AMX intrinsics, compiled in seconds by the machine's own
compiler and called by ctypes with the addresses of tensors. They use the threads of torch's OpenMP.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

_SOURCE_FOLDER = Path(__file__).parent
# No flag asks for this machine's own kind: the same bits on all that have AMX.
_FLAGS = (
    *("-O3", "-std=c++17", "-ffp-contract=off", "-fopenmp", "-shared", "-fPIC"),
    *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16", "-mfma"),
    *("-mamx-tile", "-mamx-bf16"),
)
MAX_TAPS = 36


class KernelError(RuntimeError):
    """The kernels cannot be compiled or loaded here."""


class MapsStruct(ctypes.Structure):
    """`Maps` of tiles.h."""

    _fields_ = (
        ("parts", ctypes.c_void_p * 2),
        ("channel_blocks", ctypes.c_int32 * 2),
        ("num_pixels", ctypes.c_int32),
        ("by_image", ctypes.c_int32),
    )


class DropoutStruct(ctypes.Structure):
    """`Dropout` of tiles.h."""

    _fields_ = (
        ("key", ctypes.c_int32 * 2),
        ("first_image", ctypes.c_int32),
        ("threshold", ctypes.c_int32),
        ("factor", ctypes.c_float),
    )


class ActivationStruct(ctypes.Structure):
    """`Activation` of tiles.h."""

    _fields_ = (
        ("scale", ctypes.c_void_p),
        ("shift", ctypes.c_void_p),
        ("has_silu", ctypes.c_int32),
        ("dropout", DropoutStruct),
    )


class TapStruct(ctypes.Structure):
    """`Tap` of convolution.cpp."""

    _fields_ = (("row", ctypes.c_int32), ("column", ctypes.c_int32), ("weights", ctypes.c_int32))


class GeometryStruct(ctypes.Structure):
    """`Geometry` of convolution.cpp."""

    _fields_ = (
        ("phases", ctypes.c_int32),
        ("stride", ctypes.c_int32),
        ("num_weights", ctypes.c_int32),
        ("num_taps", ctypes.c_int32 * 4),
        ("taps", TapStruct * MAX_TAPS * 4),
    )


class ConvolutionStruct(ctypes.Structure):
    """`Convolution` of convolution.cpp."""

    _fields_ = (
        ("input", MapsStruct),
        ("activation", ctypes.POINTER(ActivationStruct)),
        ("weights", ctypes.c_void_p),
        ("geometry", ctypes.POINTER(GeometryStruct)),
        ("num_blocks", ctypes.c_int32),
        ("in_height", ctypes.c_int32),
        ("in_width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("out_channel_blocks", ctypes.c_int32),
        ("chunk_rows", ctypes.c_int32),
        ("output", ctypes.c_void_p),
        ("output_by_image", ctypes.c_int32),
        ("sums", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("embedding", ctypes.c_void_p),
        ("residual", ctypes.c_void_p),
    )


class ActivationGradientStruct(ctypes.Structure):
    """`ActivationGradient` of convolution.cpp."""

    _fields_ = (("activated", MapsStruct), ("activation", ActivationStruct))


class PartSumsStruct(ctypes.Structure):
    """`PartSums` of normalisation.cpp."""

    _fields_ = (
        ("sums", ctypes.c_void_p),
        ("num_chunks", ctypes.c_int32),
        ("num_channels", ctypes.c_int32),
    )


class NormStruct(ctypes.Structure):
    """`Norm` of normalisation.cpp."""

    _fields_ = (
        ("num_blocks", ctypes.c_int32),
        ("num_pixels", ctypes.c_int32),
        ("num_groups", ctypes.c_int32),
        ("epsilon", ctypes.c_float),
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


class WeightLayoutStruct(ctypes.Structure):
    """`WeightLayout` of weights.cpp."""

    _fields_ = (
        ("num_out", ctypes.c_int32),
        ("num_in", ctypes.c_int32),
        ("num_taps", ctypes.c_int32),
        ("out_stride", ctypes.c_int64),
        ("in_stride", ctypes.c_int64),
        ("tap_stride", ctypes.c_int64),
    )


class GradientTapStruct(ctypes.Structure):
    """`GradientTap` of weights.cpp."""

    _fields_ = (("plane", ctypes.c_int32), ("row", ctypes.c_int32), ("column", ctypes.c_int32))


class WeightGradientStruct(ctypes.Structure):
    """`WeightGradient` of weights.cpp."""

    _fields_ = (
        ("input", MapsStruct),
        ("activation", ctypes.POINTER(ActivationStruct)),
        ("gradient", ctypes.c_void_p),
        ("num_blocks", ctypes.c_int32),
        ("in_height", ctypes.c_int32),
        ("in_width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("gradient_blocks", ctypes.c_int32),
        ("num_planes", ctypes.c_int32),
        ("doubled", ctypes.c_int32),
        ("stride", ctypes.c_int32),
        ("kernel_height", ctypes.c_int32),
        ("kernel_width", ctypes.c_int32),
        ("taps", ctypes.POINTER(GradientTapStruct)),
        ("gradient_scratch", ctypes.c_void_p),
        ("input_scratch", ctypes.c_void_p),
        ("layout", WeightLayoutStruct),
        ("weights", ctypes.c_void_p),
    )


class AttentionStruct(ctypes.Structure):
    """`Attention` of attention.cpp."""

    _fields_ = (
        ("queries_keys_values", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("num_blocks", ctypes.c_int32),
        ("num_pixels", ctypes.c_int32),
        ("num_heads", ctypes.c_int32),
        ("num_channels", ctypes.c_int32),
    )


class Kernels(Protocol):
    """The functions of the compiled library; what they do is said where they are written."""

    convolve_maps: Callable[..., None]
    convolve_gradient: Callable[..., None]
    norm_coefficients: Callable[..., None]
    norm_gradient_coefficients: Callable[..., None]
    norm_gradient: Callable[..., None]
    sum_maps: Callable[..., None]
    pack_weights: Callable[..., None]
    add_weight_gradient: Callable[..., None]
    attend: Callable[..., None]


def address(tensor: Tensor | None) -> int | None:
    """Return where a tensor's values begin, for a field or an argument that is a pointer."""
    return None if tensor is None else tensor.data_ptr()


def kernels_obstacle(folder: Path | None = None) -> str | None:
    """Return why the kernels cannot be used on this machine, or None where they are loaded.

    Args:
        folder: As for `load_kernels`.
    """
    if not torch.cpu._is_amx_tile_supported():
        return "the processor has no AMX"
    try:
        load_kernels(folder)
    except KernelError as error:
        return str(error)
    return None


_loaded_kernels: Kernels | None = None


def load_kernels(folder: Path | None = None) -> Kernels:
    """Compile the kernels, or take them from where another process left them; once a process.

    Args:
        folder: Where compiled kernels are kept; nobody else may write there. None keeps them for
            this process alone. Only the first call looks at it.

    Raises:
        KernelError: There is no compiler, it fails, or the processor refuses.
    """
    global _loaded_kernels
    if _loaded_kernels is None:
        if folder is not None:
            _loaded_kernels = _loaded(_compiled_into(folder))
        else:
            with tempfile.TemporaryDirectory() as temporary:
                _loaded_kernels = _loaded(_compiled_into(Path(temporary)))
    return _loaded_kernels


def _compiled_into(folder: Path) -> Path:
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    if compiler is None:
        raise KernelError("there is no C++ compiler")
    library = folder / f"kernels-{_key(compiler)}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{library.name}.{os.getpid()}"
    sources = sorted(map(str, _SOURCE_FOLDER.glob("*.cpp")))
    done = subprocess.run(
        [compiler, *_FLAGS, *sources, "-o", str(unfinished)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        raise KernelError(f"{compiler} cannot compile the AMX kernels: {(errors or ['?'])[0]}")
    unfinished.replace(library)
    return library


def _key(compiler: str) -> str:
    """Name what a compiled library depends on."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    digest = hashlib.sha256(version + " ".join(_FLAGS).encode())
    for source in sorted(_SOURCE_FOLDER.glob("*.[ch]*")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _loaded(path: Path) -> Kernels:
    try:
        library: Any = ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(f"the compiled AMX kernels cannot be loaded: {error}") from error
    if library.request_tiles() != 0:
        raise KernelError("the operating system does not let processes use AMX")
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    arguments: dict[str, list[Any]] = {
        "convolve_maps": [pointer],
        "convolve_gradient": [pointer, pointer],
        "norm_coefficients": [pointer] * 6,
        "norm_gradient_coefficients": [pointer] * 8,
        "norm_gradient": [pointer] * 5 + [number, pointer, pointer],
        "sum_maps": [pointer, number, number, number, pointer],
        "pack_weights": [pointer] * 3,
        "add_weight_gradient": [pointer],
        "attend": [pointer],
    }
    for name, types in arguments.items():
        function = getattr(library, name)
        function.argtypes, function.restype = types, None
    return cast(Kernels, library)
