"""Opens data sets wherever they are: a known name, a path, or an s3:// URI."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from orchestrator.artifacts.datasets.arrays import (
    Block,
    ImageStream,
    is_array_file,
    open_array_file,
)
from orchestrator.artifacts.datasets.files import open_folder, open_store_folder, open_tar
from orchestrator.artifacts.datasets.refs import DIGITS
from orchestrator.errors import BadInputError, DatasetError
from orchestrator.store.objects import ObjectStore
from orchestrator.store.uris import parse_store_uri


@contextmanager
def open_source(
    source: str, staging: Path, open_bucket: Callable[[str], ObjectStore]
) -> Iterator[ImageStream]:
    """Read the images of a source as a stream.

    Args:
        source: What `resolve_source` returned.
        staging: Folder for a copy of an archive that lies in a store.
        open_bucket: Opens an s3:// URI.

    Raises:
        DatasetError: The source cannot be used; the message names the file.
    """
    if source == DIGITS:
        yield _digits()
        return
    if not source.startswith("s3://"):
        with _open_path(Path(source), source) as stream:
            yield stream
        return
    try:
        parse_store_uri(source, "data set")
    except BadInputError as error:
        raise DatasetError(str(error)) from error
    folder, _, name = source.rpartition("/")
    if name and folder != "s3:/" and open_bucket(folder).exists(name):
        open_bucket(folder).get_file(name, staging / "source")
        with _open_path(staging / "source", source) as stream:
            yield stream
        return
    yield open_store_folder(open_bucket(source))


@contextmanager
def _open_path(path: Path, name: str) -> Iterator[ImageStream]:
    if path.is_dir():
        yield open_folder(path)
    elif not path.is_file():
        raise DatasetError(f"data set {name}: there is no such file or folder")
    elif is_array_file(path, name):
        with open_array_file(path, name) as stream:
            yield stream
    else:
        with open_tar(path, name) as stream:
            yield stream


def _digits() -> ImageStream:
    """Return the 1,797 handwritten digits of scikit-learn, (8, 8, 1), 0..16 spread to 0..255."""
    package = importlib.util.find_spec("sklearn")
    folders = (package and package.submodule_search_locations) or []
    # Taken from where it lies: importing scikit-learn is most of the first `submit`'s seconds.
    paths = [Path(folder, "datasets", "data", "digits.csv.gz") for folder in folders]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise DatasetError(
            "the data set 'digits' comes with scikit-learn, which is not installed: "
            "pip install 'ddpmctl[embedded]'"
        )
    table = np.loadtxt(path, dtype=np.uint8, delimiter=",")  # a row: 64 pixels and the digit
    images = np.round(table[:, :64].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return ImageStream(len(images), iter([Block(0, images, DIGITS)]))
