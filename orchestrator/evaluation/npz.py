"""Arrays of an npz file that somebody may have damaged, or that is none."""

import io
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CANNOT_BE_READ = (
    EOFError,
    KeyError,
    NotImplementedError,  # a compression, or encryption, that a flipped bit asks for
    OSError,
    RuntimeError,
    TypeError,  # one array alone
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(body: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file by name; their checksums are right.

    Args:
        body: The file.

    Raises:
        ValueError: It cannot be read; the message says why.
    """
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    except _CANNOT_BE_READ as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
