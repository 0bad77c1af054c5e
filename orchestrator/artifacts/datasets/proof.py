"""Proves a data set: every chunk, the name of all its pixels, its labels."""

from dataclasses import dataclass

from orchestrator.artifacts.datasets.chunks import PixelHash, read_chunk
from orchestrator.artifacts.datasets.labels import read_labels
from orchestrator.artifacts.datasets.manifest import read_manifest
from orchestrator.artifacts.datasets.refs import DatasetRef
from orchestrator.errors import DatasetError
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True)
class DatasetReport:
    """What rereading a set found.

    Attributes:
        sha256: The set.
        num_images: Images that were read and are good.
        problems: One line for each chunk that is missing or damaged, and for a name that is wrong.
    """

    sha256: str
    num_images: int
    problems: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_dataset(store: ObjectStore, ref: DatasetRef) -> DatasetReport:
    """Reread a set, chunk by chunk, in constant memory."""
    manifest = read_manifest(store, ref.images)
    shape = (ref.num_images, ref.height, ref.width, ref.channels)
    pixels, num_images, problems = PixelHash(ref.dtype, shape), 0, []
    for chunk in manifest.chunks:
        try:
            images = read_chunk(store, chunk)
        except DatasetError as error:
            problems.append(str(error))
            continue
        pixels.update(images)
        num_images += len(images)
    if not problems and pixels.hexdigest(ref.dtype, ref.value_range) != ref.images:
        problems.append(f"the pixels of {ref.images[:12]} have another SHA-256 than its name")
    if ref.class_names:
        try:
            read_labels(store, ref)
        except DatasetError as error:
            problems.append(str(error))
    return DatasetReport(ref.sha256, num_images, tuple(problems))
