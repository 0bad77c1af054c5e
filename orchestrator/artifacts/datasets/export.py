"""Writes a data set to local files, with the values and the type that it was given with."""

import io
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.datasets.chunks import read_chunk
from orchestrator.artifacts.datasets.labels import read_labels
from orchestrator.artifacts.datasets.manifest import read_manifest
from orchestrator.artifacts.datasets.refs import DatasetRef
from orchestrator.artifacts.images import encode_png
from orchestrator.errors import BadInputError
from orchestrator.store.objects import ObjectStore

ExportForm = Literal["npz", "npy", "png", "tiff"]
_NPZ_TIME = (1980, 1, 1, 0, 0, 0)


def export_dataset(store: ObjectStore, ref: DatasetRef, form: ExportForm, output: Path) -> None:
    """Write a set; it appears only when it is whole, and memory does not grow with it.

    Args:
        store: Where it lies.
        ref: The set.
        form: "npz" has `arr_0` and, of a set with labels, `labels`; "npy" one array; "png" and
            "tiff" a folder with a file for each image, below a folder for each class.
        output: The file or folder, which is not there yet.

    Raises:
        BadInputError: It is there, cannot be written, or PNG cannot hold the values.
        DatasetError: A chunk is damaged.
    """
    output = Path(os.path.abspath(output))  # noqa: PTH100 - a link stays one, `..` does not
    if output.exists():
        raise BadInputError(f"{output} exists; choose another --output")
    if form == "png" and (ref.dtype != "uint8" or ref.channels > 4):
        raise BadInputError(
            f"PNG cannot hold {ref.channels} channels of {ref.dtype}; export npz, npy or tiff"
        )
    try:
        with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
            part = Path(scratch) / "part"
            _WRITERS[form](store, ref, part)
            part.rename(output)
    except OSError as error:
        raise BadInputError(f"cannot write {output}: {error.strerror or error}") from error


def _chunks(store: ObjectStore, ref: DatasetRef) -> Iterator[NDArray[Any]]:
    for chunk in read_manifest(store, ref.images).chunks:
        yield read_chunk(store, chunk)


def _header(ref: DatasetRef) -> bytes:
    packed = io.BytesIO()
    description = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(ref.dtype).newbyteorder("<")),
        "fortran_order": False,
        "shape": (ref.num_images, ref.height, ref.width, ref.channels),
    }
    np.lib.format.write_array_header_2_0(packed, description)
    return packed.getvalue()


def _write_npy(store: ObjectStore, ref: DatasetRef, part: Path) -> None:
    with part.open("wb") as file:
        file.write(_header(ref))
        for images in _chunks(store, ref):
            file.write(np.ascontiguousarray(images).data)


def _write_npz(store: ObjectStore, ref: DatasetRef, part: Path) -> None:
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        member = zipfile.ZipInfo("arr_0.npy", date_time=_NPZ_TIME)
        with archive.open(member, "w", force_zip64=True) as file:
            file.write(_header(ref))
            for images in _chunks(store, ref):
                file.write(np.ascontiguousarray(images).data)
        if ref.class_names:
            packed = io.BytesIO()
            np.save(packed, read_labels(store, ref).values, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo("labels.npy", _NPZ_TIME), packed.getvalue())


def _write_pngs(store: ObjectStore, ref: DatasetRef, part: Path) -> None:
    for path, image in _named_images(store, ref, part, "png"):
        path.write_bytes(encode_png(image))


def _write_tiffs(store: ObjectStore, ref: DatasetRef, part: Path) -> None:
    try:
        import tifffile
    except ImportError as error:
        raise BadInputError("TIFF needs: pip install 'ddpmctl[images]'") from error
    for path, image in _named_images(store, ref, part, "tiff"):
        photometric = "rgb" if ref.channels in (3, 4) else "minisblack"
        is_grey = ref.channels == 1
        pixels = image[..., 0] if is_grey else image
        planar = None if is_grey else "contig"
        tifffile.imwrite(path, pixels, photometric=photometric, planarconfig=planar)


def _named_images(
    store: ObjectStore, ref: DatasetRef, part: Path, suffix: str
) -> Iterator[tuple[Path, NDArray[Any]]]:
    """Yield each image with its file, whose name keeps the order; folders are numbered classes."""
    classes = read_labels(store, ref).values if ref.class_names else None
    part.mkdir()
    for number in range(ref.num_classes):
        (part / f"{number:05d}").mkdir()
    index = 0
    for images in _chunks(store, ref):
        for image in images:
            folder = part if classes is None else part / f"{int(classes[index]):05d}"
            yield folder / f"{index:09d}.{suffix}", image
            index += 1


_WRITERS: Mapping[ExportForm, Callable[[ObjectStore, DatasetRef, Path], None]] = {
    "npz": _write_npz,
    "npy": _write_npy,
    "png": _write_pngs,
    "tiff": _write_tiffs,
}
