"""Writes a whole sample set to local files, shard by shard, so that memory does not depend on N."""

import io
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np

from orchestrator.artifacts.images import encode_png
from orchestrator.artifacts.samples.labels import NO_CLASS, LabelRule
from orchestrator.artifacts.samples.verify import SampleSet
from orchestrator.errors import BadInputError
from orchestrator.store.objects import ObjectStore

ExportFormat = Literal["npz", "png", "png-by-class", "parquet"]
_FOLDERS = ("png", "png-by-class")
_NO_CLASS_FOLDER = "no-class"
_NPZ_TIME = (1980, 1, 1, 0, 0, 0)
_FOLDER_NAME = re.compile(r"[^\W_.-][^/\\\x00-\x1f]{0,99}")  # of any language's letters
_EXPORTED_PNG = re.compile(r"\d{9,}\.png")


def export_samples(
    store: ObjectStore,
    job_id: str,
    export_format: ExportFormat,
    output: Path,
    *,
    overwrite: bool = False,
) -> int:
    """Write a job's sample set to local files; every shard is verified on the way.

    Args:
        store: Where the set is.
        job_id: The sample job.
        export_format: "npz" has `arr_0`, (N, H, W, C) uint8, as FID tools take it, and the
            labels as `arr_1`, where there are some; "png" is a folder of files named by index,
            "png-by-class" has a folder of such files for each class, as data sets are often laid
            out; "parquet" has the columns `index`, `png` and, with labels, `label`.
        output: The file, or for both of "png" the folder. It appears only when it is whole.
        overwrite: Replace what is there.

    Returns:
        Number of images.

    Raises:
        BadInputError: The set is not whole or has no labels to sort by, `output` cannot be
            written, or there is something that is not to be replaced.
        ShardDamagedError: A shard is not what was committed.
    """
    output = Path(os.path.abspath(output))  # noqa: PTH100 - a link stays one, `..` does not
    _check_target(output, export_format, overwrite)
    samples = SampleSet(store, job_id)
    samples.manifest()
    try:
        with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
            part = Path(scratch) / "part"
            _WRITERS[export_format](samples, part)
            _replace(output, part)
    except OSError as error:
        raise BadInputError(f"cannot write {output}: {error.strerror or error}") from error
    return samples.spec.num_samples


def _check_target(output: Path, export_format: ExportFormat, overwrite: bool) -> None:
    """Make sure that no folder is replaced but one of an export of png."""
    if not output.parent.is_dir():
        raise BadInputError(f"there is no folder {output.parent} to write {output.name} into")
    if not output.exists():
        return
    if not overwrite:
        raise BadInputError(f"{output} exists; choose another --output, or pass --overwrite")
    if not output.is_dir():
        return
    if (
        export_format not in _FOLDERS
        or output.is_symlink()
        or output == Path.cwd()
        or not _is_export(output)
    ):
        raise BadInputError(
            f"{output} is a folder, and no export of png that --overwrite could replace; "
            "choose another --output"
        )


def _is_export(folder: Path) -> bool:
    """Tell whether a folder holds what an export of png wrote, and nothing else."""
    return all(
        _EXPORTED_PNG.fullmatch(path.name)
        or (path.is_dir() and all(_EXPORTED_PNG.fullmatch(one.name) for one in path.iterdir()))
        for path in folder.iterdir()
    )


def _replace(output: Path, part: Path) -> None:
    """Put the new in the place of the old, which goes last: a crash loses neither."""
    old = part.with_name("replaced")
    if output.is_dir():
        output.rename(old)
    try:
        part.rename(output)
    except BaseException:
        if old.is_dir():
            old.rename(output)
        raise


def _write_npz(samples: SampleSet, part: Path) -> None:
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        member = zipfile.ZipInfo("arr_0.npy", date_time=_NPZ_TIME)
        with archive.open(member, "w", force_zip64=True) as stream:
            for number, (commit, pixels) in enumerate(samples.verified_shards()):
                if number == 0:
                    shape = (samples.spec.num_samples, *commit.image_shape)
                    stream.write(_npy_header(shape))
                stream.write(np.ascontiguousarray(pixels).data)
        if samples.rule is not None:
            labels = samples.rule.of(0, samples.spec.num_samples)
            member = zipfile.ZipInfo("arr_1.npy", date_time=_NPZ_TIME)
            with archive.open(member, "w", force_zip64=True) as stream:
                stream.write(_npy_header(labels.shape, "<i8"))
                stream.write(labels.astype("<i8").tobytes())


def _npy_header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    header = io.BytesIO()
    description = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(header, description)
    return header.getvalue()


def _write_pngs(samples: SampleSet, part: Path) -> None:
    part.mkdir()
    for commit, pixels in samples.verified_shards():
        for index, image in enumerate(pixels, start=commit.start):
            (part / f"{index:09d}.png").write_bytes(encode_png(image))


def _write_class_folders(samples: SampleSet, part: Path) -> None:
    if samples.rule is None:
        raise BadInputError("the set has no labels to sort by: export it as png")
    part.mkdir()
    folders = _class_folders(samples.rule)
    for commit, pixels in samples.verified_shards():
        labels = samples.rule.of(commit.start, commit.stop).tolist()
        for index, label, image in zip(count(commit.start), labels, pixels, strict=False):
            folder = part / folders[label]
            folder.mkdir(exist_ok=True)
            (folder / f"{index:09d}.png").write_bytes(encode_png(image))


def _class_folders(rule: LabelRule) -> dict[int, str]:
    """Return the folder of each class: its name, or its number where that can be no folder's."""
    names = [*rule.class_names]
    fits = len({name.casefold() for name in (*names, _NO_CLASS_FOLDER)}) == len(names) + 1
    fits = fits and all(_FOLDER_NAME.fullmatch(name) for name in names)
    folders = dict(enumerate(names if fits else map(str, range(len(names)))))
    return {**folders, NO_CLASS: _NO_CLASS_FOLDER}


def _write_parquet(samples: SampleSet, part: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [("index", pa.int64()), ("png", pa.binary())]
    if samples.rule is not None:
        fields.append(("label", pa.int64()))
    schema = pa.schema(fields)
    with pq.ParquetWriter(part, schema, compression="none") as writer:
        for commit, pixels in samples.verified_shards():
            columns: dict[str, object] = {
                "index": range(commit.start, commit.stop),
                "png": [encode_png(image) for image in pixels],
            }
            if samples.rule is not None:
                columns["label"] = samples.rule.of(commit.start, commit.stop).tolist()
            writer.write_table(pa.table(columns, schema=schema))


_WRITERS: Mapping[ExportFormat, Callable[[SampleSet, Path], None]] = {
    "npz": _write_npz,
    "png": _write_pngs,
    "png-by-class": _write_class_folders,
    "parquet": _write_parquet,
}
