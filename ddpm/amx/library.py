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

_SOURCE_FOLDER = Path(__file__).parent
# No flag asks for this machine's own kind: the same bits on all that have AMX.
_FLAGS = (
    *("-O3", "-std=c++17", "-ffp-contract=off", "-fopenmp", "-shared", "-fPIC"),
    *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16", "-mfma"),
    *("-mamx-tile", "-mamx-bf16"),
)


class KernelError(RuntimeError):
    """The kernels cannot be compiled or loaded here."""


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
