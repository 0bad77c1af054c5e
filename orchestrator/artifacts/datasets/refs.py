"""Data sets by name: where one comes from, and which one of the store it is.

Nothing here opens an image, so that a job with a data set that the store holds is submitted
without the libraries that read images.
"""

import difflib
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.errors import DatasetError
from orchestrator.store.codec import Codec
from orchestrator.store.keys import DATASETS, dataset_folder
from orchestrator.store.objects import ObjectStore

DIGITS = "digits"
FORMAT_VERSION = 1  # of labels, and of sets that are one array
CHUNKED_VERSION = 2
# Data sets that come with a package. Their hash is known, so nothing is imported to find them.
NAMED_SHA256 = {
    DIGITS: "130bc464515cfdcd2c5c8dc7d8c6d18de76133eb1f1511a2c1881bbf7b828125",
}
_BARE_WORD = re.compile(r"[\w-]+")
_WHOLE_NAME = re.compile(r"[0-9a-f]{64}")
_STORED_NAME = re.compile(r"[0-9a-f]{12,64}")


@dataclass(frozen=True)
class DatasetRef:
    """A data set in the store.

    Attributes:
        sha256: Hash of shape and pixels, and its name in the store.
        num_images: N.
        height: H, in pixels.
        width: W, in pixels.
        channels: C: 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA).
        source: Where it was taken from.
        dtype: Of a stored value.
        value_range: What stands for -1 and for 1.
        images_sha256: Of a set with labels, the name of its images; "" for a set without.
        class_names: Of a set with labels.
        class_counts: Images of each class.
    """

    sha256: str
    num_images: int
    height: int
    width: int
    channels: int
    source: str
    dtype: str = "uint8"
    value_range: tuple[float, float] = (0.0, 255.0)
    images_sha256: str = ""
    class_names: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()

    @property
    def images(self) -> str:
        """The name of the images in the store."""
        return self.images_sha256 or self.sha256

    @property
    def num_classes(self) -> int:
        """Classes of the labels; 0 for a set without."""
        return len(self.class_names)

    @property
    def profile(self) -> dict[str, object]:
        """What is logged of it to MLflow, beside its name."""
        logged = {key: value for key, value in asdict(self).items() if key != "sha256"}
        names, counts = logged.pop("class_names"), logged.pop("class_counts")
        if logged["images_sha256"] == "":
            del logged["images_sha256"]
        if names:
            logged["num_classes"] = len(names)
            logged["images_by_class"] = dict(zip(names, counts, strict=True))
        return logged


# What all manifests begin with, those of labels among them; the rest is passed over.
DATASET_REF = Codec(DatasetRef, "manifest of a data set", version=CHUNKED_VERSION)


def resolve_source(source: str, folder: Path) -> str:
    """Return a source that means the same from anywhere.

    Args:
        source: The name of a known data set, an s3:// URI, or a path.
        folder: What a relative path is relative to: the job file's folder.

    Raises:
        DatasetError: It is none of them, or nothing is at the path.
    """
    if source in NAMED_SHA256 or source.startswith("s3://"):
        return source
    if "://" in source:
        raise DatasetError(f"data set {source!r}: only paths and s3:// URIs can be read")
    try:
        path = folder / Path(source).expanduser()
        if path.exists():
            return str(path.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # no such user, no name of a file, closed
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise DatasetError(f"data set {source[:80]!r}: {reason}") from error
    if _STORED_NAME.fullmatch(source):
        return source
    if _BARE_WORD.fullmatch(source):
        raise DatasetError(_unknown_name(source))
    raise DatasetError(f"data set {source!r}: there is no file or folder {path}")


def _unknown_name(name: str) -> str:
    nearest = difflib.get_close_matches(name.lower(), NAMED_SHA256, n=1)
    if nearest:
        return f"no data set is called {name!r}; did you mean {nearest[0]!r}?"
    known = ", ".join(NAMED_SHA256)
    return f"no data set is called {name!r}; known: {known}; else give a path or an s3:// URI"


def find_known(source: str, store: ObjectStore) -> DatasetRef | None:
    """Return a data set whose hash is known if the store holds it, else None: it must be read.

    Raises:
        DatasetError: The source is the name of a data set that the store does not hold.
    """
    sha256 = NAMED_SHA256.get(source)
    if sha256 is not None:
        return _described(store, sha256)
    return find_stored(source, store) if _STORED_NAME.fullmatch(source) else None


def find_stored(name: str, store: ObjectStore) -> DatasetRef:
    """Return a data set of the store by its name, or by the beginning of it.

    Raises:
        DatasetError: There is none, or more than one.
    """
    found = [folder for folder in stored_names(store) if folder.startswith(name)]
    if len(found) != 1:
        many = f"{len(found)} data sets" if found else "no data set"
        raise DatasetError(f"{store.uri} holds {many} called {name}; see `ddpmctl datasets list`")
    return describe(store, found[0])


def stored_names(store: ObjectStore) -> list[str]:
    """Return the names of the data sets of a store, those that are not whole among them."""
    return [folder for folder in store.list_folders(DATASETS) if _WHOLE_NAME.fullmatch(folder)]


def describe(store: ObjectStore, sha256: str) -> DatasetRef:
    """Return what the store's manifest says of a data set.

    Raises:
        DatasetError: The store does not hold it.
    """
    ref = _described(store, sha256)
    if ref is None:
        raise DatasetError(not_in_store(store, sha256))
    return ref


def _described(store: ObjectStore, sha256: str) -> DatasetRef | None:
    return DATASET_REF.value(store, manifest_key(sha256))


def manifest_key(sha256: str) -> str:
    """Return the key of the object that is written last, and makes a data set whole."""
    return f"{dataset_folder(sha256)}manifest.json"


def not_in_store(store: ObjectStore, sha256: str) -> str:
    """Return the sentence that says so."""
    return f"the store {store.uri} holds no data set {sha256[:12]}; submit the job again"
