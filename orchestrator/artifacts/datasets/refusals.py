"""What is no source of images, and what to do instead: one sentence for each kind."""

from pathlib import PurePosixPath
from typing import NoReturn

from orchestrator.artifacts.datasets.entries import Listing
from orchestrator.artifacts.datasets.kinds import kind_of
from orchestrator.errors import DatasetError

_PICKLE = "is a Python pickle, which can run code when it is read; save its images by np.savez"
_HDF5 = "is an HDF5 file; save its images by np.save, or one after the other as PNG or TIFF"
_LMDB = "is an LMDB database; write its images out as files, a tar or a zip"
_SEVEN_ZIP = "is a 7z archive; unpack it and give the folder, or pack it as tar or zip"
_RAR = "is a RAR archive; unpack it and give the folder, or pack it as tar or zip"
_MATLAB = "is a MATLAB file; save its images by np.savez"
_TORCH = "is a file of PyTorch, which is a pickle; save its images by np.savez"
_TFRECORD = "is a TFRecord file; write its images out as files, a tar or Parquet"
_HEADS = {
    b"\x89HDF\r\n\x1a\n": _HDF5,
    b"7z\xbc\xaf\x27\x1c": _SEVEN_ZIP,
    b"Rar!\x1a\x07": _RAR,
    b"MATLAB ": _MATLAB,
    b"\x80\x02": _PICKLE,
    b"\x80\x03": _PICKLE,
    b"\x80\x04": _PICKLE,
    b"\x80\x05": _PICKLE,
}
_SUFFIXES = {
    ".mdb": _LMDB,
    ".lmdb": _LMDB,
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".pkl": _PICKLE,
    ".pickle": _PICKLE,
    ".pt": _TORCH,
    ".pth": _TORCH,
    ".7z": _SEVEN_ZIP,
    ".rar": _RAR,
    ".mat": _MATLAB,
    ".tfrecord": _TFRECORD,
    ".tfrecords": _TFRECORD,
}
_LMDB_AT, _LMDB_MARK = 16, b"\xde\xc0\xef\xbe"
_LOOKED_AT, _HEAD_BYTES = 8, 64
_SINGLE = frozenset({".gz", ".npy", ".npz", ".zip", ".tgz", ".zst"})
_KINDS = "PNG, JPEG, WebP, BMP, TIFF or GIF"


def refuse_kind(head: bytes, name: str) -> None:
    """Raise DatasetError for a file that is known by its first bytes and is no source."""
    refuse_source(head, name)
    kind = kind_of(head)
    if kind is not None:
        raise DatasetError(f"{name} is {kind}")


def refuse_source(head: bytes, name: str) -> None:
    """Raise DatasetError for a file of data that is known by its first bytes and is not read."""
    for magic, problem in _HEADS.items():
        if head.startswith(magic):
            raise DatasetError(f"{name} {problem}")
    if head[_LMDB_AT : _LMDB_AT + 4] == _LMDB_MARK:
        raise DatasetError(f"{name} {_LMDB}")


def refuse_listing(listing: Listing, name: str) -> NoReturn:
    """Raise DatasetError for a folder or an archive without pictures."""
    for other in sorted(listing.others)[:_LOOKED_AT]:
        entry = listing.others[other]
        size = _HEAD_BYTES if entry.size_bytes < 0 else min(_HEAD_BYTES, entry.size_bytes)
        head = listing.place.read(entry.path, entry.first_byte, size) if size else b""
        refuse_source(head, listing.place.full_name(other))
    for other in sorted(listing.others):
        suffix = PurePosixPath(other).suffix.lower()
        if suffix in _SUFFIXES:
            raise DatasetError(f"{listing.place.full_name(other)} {_SUFFIXES[suffix]}")
    several = [n for n in listing.others if PurePosixPath(n).suffix.lower() in _SINGLE]
    hint = f"; give one of its files itself, such as {min(several)}" if several else ""
    raise DatasetError(f"{name} holds no {_KINDS} file; it holds: {listing.survey.found()}{hint}")
