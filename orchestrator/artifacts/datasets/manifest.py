"""The manifest of a data set: what the store says of one, written last, so that it makes it whole.

The manifest of a set with labels says what a `DatasetRef` does, and names the set of its images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.artifacts.datasets.chunks import Chunk
from orchestrator.artifacts.datasets.damages import Damage
from orchestrator.artifacts.datasets.left_out import SurveyReport
from orchestrator.artifacts.datasets.reading import Reading
from orchestrator.artifacts.datasets.refs import (
    CHUNKED_VERSION,
    DatasetRef,
    manifest_key,
    not_in_store,
)
from orchestrator.artifacts.datasets.statistics import Summary
from orchestrator.errors import DatasetError
from orchestrator.store.codec import Codec
from orchestrator.store.keys import dataset_folder
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True)
class Manifest(DatasetRef):
    """All that the store says of a set of images; one of format 1 has the first two alone.

    Attributes:
        size_bytes: Of all chunks.
        chunks: In order; a set of format 1 is one chunk without a hash of its own.
        statistics: Of the values.
        reading: What was done to the images on their way.
        decoders: The versions of what decoded them.
        survey: What became of the files of the source.
        notes: What was done to images that their owner should know, and to how many.
        num_damaged: Images that could not be read, and were passed over.
        damaged: The first of these.
        preparation: The name of the preparation that the set came of.
    """

    size_bytes: int = 0
    chunks: tuple[Chunk, ...] = ()
    statistics: Summary | None = None
    reading: Reading | None = None
    decoders: Mapping[str, str] = field(default_factory=dict)
    survey: SurveyReport | None = None
    notes: Mapping[str, int] = field(default_factory=dict)
    num_damaged: int = 0
    damaged: tuple[Damage, ...] = ()
    preparation: str = ""

    @property
    def ref(self) -> DatasetRef:
        """The set alone."""
        return DatasetRef(**{name: getattr(self, name) for name in DatasetRef.__dataclass_fields__})


def _from_one_array(value: dict[str, object]) -> dict[str, object]:
    """Return a manifest of format 1 in this form: `images.npy` lies beside it."""
    if value.get("images_sha256"):
        return value
    key = f"{dataset_folder(str(value['sha256']))}images.npy"
    chunk = {
        "key": key,
        "num_images": value["num_images"],
        "size_bytes": value["size_bytes"],
        "sha256": "",
    }
    return {**value, "chunks": [chunk]}


MANIFEST = Codec(
    Manifest, "manifest of a data set", version=CHUNKED_VERSION, upgrade=_from_one_array, indent=1
)


def read_manifest(store: ObjectStore, sha256: str) -> Manifest:
    """Return the manifest of a set's images; of a set with labels that of its images.

    Raises:
        DatasetError: The store has none.
        StoredFormError: It is damaged, or of a newer version.
    """
    manifest = MANIFEST.value(store, manifest_key(sha256))
    if manifest is None:
        raise DatasetError(not_in_store(store, sha256))
    return read_manifest(store, manifest.images_sha256) if manifest.images_sha256 else manifest
