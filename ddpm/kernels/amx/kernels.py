"""The kernels of this package: how they are compiled, found again and called.

They are C++ with AMX intrinsics, compiled in seconds by the machine's own compiler and called by
ctypes with the addresses of tensors. They use the threads of torch's OpenMP.
"""

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from ddpm.errors import KernelError
from ddpm.kernels.amx.structs import STRUCTS

SOURCE_FOLDER = Path(__file__).parent / "src"
# No flag asks for this machine's own kind: the same bits on all that have AMX.
FLAGS = (
    *("-O3", "-std=c++17", "-ffp-contract=off", "-fopenmp", "-shared", "-fPIC"),
    *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16", "-mfma"),
    *("-mamx-tile", "-mamx-bf16"),
)


class Kernels(Protocol):
    """The functions of the compiled library; what they do is said where they are written."""

    pack_weights: Callable[..., None]
    compute_layer: Callable[..., None]
    compute_layer_gradient: Callable[..., None]
    attend: Callable[..., None]
    attention_gradient: Callable[..., None]
    run_program: Callable[..., None]


_lock = threading.Lock()
_loaded_kernels: Kernels | None = None
_obstacle: str | None = None


def kernels_obstacle(folder: Path | None = None) -> str | None:
    """Return why the kernels cannot be used on this machine, or None where they are loaded.

    Args:
        folder: As for `load_kernels`.
    """
    try:
        load_kernels(folder)
    except KernelError as error:
        return str(error)
    return None


def load_kernels(folder: Path | None = None) -> Kernels:
    """Compile the kernels, or take them from where another process left them; once a process.

    Args:
        folder: Where compiled kernels are kept; nobody else may write there. None keeps them for
            this process alone. Only the first call looks at it.

    Raises:
        KernelError: There is no g++, it fails, or the processor or the system refuses.
    """
    global _loaded_kernels, _obstacle
    if _loaded_kernels is not None:
        return _loaded_kernels
    with _lock:
        if _obstacle is not None:
            raise KernelError(_obstacle)
        if _loaded_kernels is None:
            try:
                _loaded_kernels = _load(folder)
            except (KernelError, OSError) as error:
                _obstacle = str(error)
                raise KernelError(_obstacle) from error
    return _loaded_kernels


def _load(folder: Path | None) -> Kernels:
    if not (torch.cpu._is_amx_tile_supported() and torch.cpu._is_avx512_bf16_supported()):
        raise KernelError("the processor has no AMX")
    # clang would bring an OpenMP of its own, which does not know torch's number of threads.
    compiler = shutil.which("g++")
    if compiler is None:
        raise KernelError("there is no g++")
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return _opened(_compile(compiler, Path(temporary)))
    library = folder / f"kernels-{_key(compiler)}.so"
    if library.exists():
        try:
            return _opened(library)
        except KernelError:
            library.unlink(missing_ok=True)  # torn; it is made anew
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        _compile(compiler, Path(temporary)).replace(library)
    return _opened(library)


def _compile(compiler: str, folder: Path) -> Path:
    library = folder / "kernels.so"
    sources = sorted(map(str, SOURCE_FOLDER.glob("*.cpp")))
    done = subprocess.run(
        ["env", "LC_ALL=C", compiler, *FLAGS, *sources, "-o", str(library)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        raise KernelError(f"{compiler} cannot compile the AMX kernels: {(errors or ['?'])[0]}")
    return library


def _key(compiler: str) -> str:
    """Name what a compiled library depends on."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    digest = hashlib.sha256(version + " ".join(FLAGS).encode())
    for source in sorted(SOURCE_FOLDER.glob("*.[ch]*")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def check_sizes(library: ctypes.CDLL) -> None:
    """See that each struct is as long in the compiled kernels as in its mirror here.

    Raises:
        KernelError: One is not: a field is missing, or of another type, on one of the sides.
    """
    for name, kind in STRUCTS.items():
        theirs, ours = library[f"size_of_{name}"](), ctypes.sizeof(kind)
        if theirs != ours:
            raise KernelError(
                f"{name} has {theirs} bytes in the compiled AMX kernels and {ours} in "
                f"{kind.__name__}: kernels.py and src/ are of different versions"
            )


def _opened(path: Path) -> Kernels:
    try:
        library: Any = ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(f"the compiled AMX kernels cannot be loaded: {error}") from error
    check_sizes(library)
    if library.request_tiles() != 0:
        raise KernelError("the operating system does not let processes use AMX")
    numbers_of_arguments = {
        "pack_weights": 3,
        "compute_layer": 1,
        "compute_layer_gradient": 1,
        "attend": 1,
        "attention_gradient": 1,
        "run_program": 1,
    }
    for name, number in numbers_of_arguments.items():
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_void_p] * number, None
    return cast(Kernels, library)
