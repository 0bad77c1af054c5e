"""The two sets of images that an evaluation compares, and how a worker reads a shard of one."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.datasets.labels import ClassLabels, read_labels
from orchestrator.artifacts.datasets.node_cache import fetch
from orchestrator.artifacts.datasets.refs import describe
from orchestrator.artifacts.samples.verify import SampleSet
from orchestrator.cluster.cache import cache_folder
from orchestrator.counts import counted
from orchestrator.errors import BadInputError, JobNotFoundError, ShardDamagedError
from orchestrator.jobs.lookup import find_job_id
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_spec
from orchestrator.jobs.units import Shard, ShardPlan
from orchestrator.specs.evaluate import EvaluateJob, SetRef
from orchestrator.specs.kinds import JOB_KINDS, Output
from orchestrator.specs.sections import DatasetSpec
from orchestrator.store.objects import ObjectStore

DATASET_SHARD = 1024
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images that the store holds, as an evaluation has fixed them once.

    Attributes:
        form: A job's sample set, or a data set.
        name: What people call it: the job's id, or the source.
        sha256: Hash of the images; features are kept under it.
        job_id: Of a sample set.
        num_images: N.
        shape: (H, W, C).
        shard_size: Images of a shard of features.
        holdout_fraction: Of a data set, the share that no training saw.
        labelled_sha256: Of a data set with labels, the name of images and labels together.
    """

    form: Literal["samples", "dataset"]
    name: str
    sha256: str
    num_images: int
    shape: tuple[int, int, int]
    shard_size: int
    job_id: str = ""
    holdout_fraction: float = 0.0
    labelled_sha256: str = ""

    @property
    def plan(self) -> ShardPlan:
        """Its shards."""
        return ShardPlan(self.num_images, self.shard_size)


def find_sets(store: ObjectStore, spec: EvaluateJob) -> tuple[ImageSet, ImageSet]:
    """Return what is evaluated and what it is compared with.

    Raises:
        BadInputError: One is not there, not whole, or the two don't go together.
    """
    samples = _of_job(store, spec.of, "of", may_be_training=False)
    if spec.against is not None:
        reference = _of_job(store, spec.against, "against", may_be_training=True)
    else:
        assert spec.dataset is not None  # noqa: S101 - the spec has one of the two
        reference = _of_dataset(store, spec.dataset)
    if samples.shape != reference.shape:
        raise BadInputError(
            f"{samples.name} has images of {_size(samples)}, {reference.name} of "
            f"{_size(reference)}; nothing is resized here: compare images of one size"
        )
    for images in (samples, reference):
        if images.num_images <= spec.k:
            raise BadInputError(
                f"{images.name} has {counted(images.num_images, 'image')}; "
                f"k = {spec.k} neighbours need more"
            )
    return samples, reference


def _size(images: ImageSet) -> str:
    height, width, channels = images.shape
    return f"{height} x {width} with {counted(channels, 'channel')}"


def _of_job(store: ObjectStore, ref: SetRef, field: str, *, may_be_training: bool) -> ImageSet:
    try:
        job_id = find_job_id(store, ref.job)
        spec = read_spec(RecordStore(store), job_id)
    except JobNotFoundError as error:
        raise BadInputError(f"{field}.job: {error}") from error
    if JOB_KINDS[spec.kind].output is Output.SAMPLES:
        return _of_samples(store, job_id, field)
    if may_be_training and spec.dataset_input is not None:
        return _of_dataset(store, spec.dataset_input)
    raise BadInputError(f"{field}.job: {job_id} is a {spec.kind} job and has no such images")


def _of_samples(store: ObjectStore, job_id: str, field: str) -> ImageSet:
    samples = SampleSet(store, job_id)
    try:
        manifest = samples.manifest()
    except ShardDamagedError as error:
        raise BadInputError(f"{field}.job: {error}") from error
    height, width, channels = manifest.image_shape
    return ImageSet(
        form="samples",
        name=job_id,
        sha256=manifest.set_sha256,
        num_images=samples.plan.num_samples,
        shape=(height, width, channels),
        shard_size=samples.plan.shard_size,
        job_id=job_id,
    )


def _of_dataset(store: ObjectStore, spec: DatasetSpec) -> ImageSet:
    ref = describe(store, str(spec.sha256))
    if (ref.dtype, ref.value_range) != ("uint8", (0.0, 255.0)):
        raise BadInputError(
            f"{spec.source} holds {ref.dtype} in the range {list(ref.value_range)}; "
            "features are those of 8-bit images"
        )
    return ImageSet(
        form="dataset",
        name=spec.source,
        sha256=ref.images,
        num_images=ref.num_images,
        shape=(ref.height, ref.width, ref.channels),
        shard_size=DATASET_SHARD,
        holdout_fraction=spec.holdout_fraction,
        labelled_sha256=ref.sha256 if ref.class_names else "",
    )


def read_classes(store: ObjectStore, images: ImageSet) -> ClassLabels | None:
    """Return the classes of a set's images; None of a set without labels. Raises: DatasetError."""
    if not images.labelled_sha256:
        return None
    return read_labels(store, describe(store, images.labelled_sha256))


class ShardReader(Protocol):
    """Reads the images of one set."""

    def read(self, shard: Shard) -> Pixels:
        """Return a shard's images, verified: (n, H, W, C) uint8."""


def open_reader(store: ObjectStore, images: ImageSet) -> ShardReader:
    """Return what reads a set's shards on this machine."""
    if images.form == "samples":
        return _SampleReader(store, images)
    return _DatasetReader(store, images)


def read_images(store: ObjectStore, images: ImageSet, indices: NDArray[np.int64]) -> Pixels:
    """Return some images of a set, in the order of `indices`: (len(indices), H, W, C) uint8."""
    reader, plan, size = open_reader(store, images), images.plan, images.shard_size
    by_index: dict[int, Pixels] = {}
    for number in sorted({int(index) // size for index in indices}):
        pixels = reader.read(plan[number])
        for index in indices:
            if int(index) // size == number:
                by_index[int(index)] = pixels[int(index) - number * size]
    return np.stack([by_index[int(index)] for index in indices])


class _SampleReader:
    def __init__(self, store: ObjectStore, images: ImageSet) -> None:
        self._samples = SampleSet(store, images.job_id)
        self._origin = self._samples.origin

    def read(self, shard: Shard) -> Pixels:
        if self._origin is None:
            raise ShardDamagedError(f"{self._samples.paths.decisions} is missing")
        return self._samples.read(shard, self._origin)[1]


class _DatasetReader:
    def __init__(self, store: ObjectStore, images: ImageSet) -> None:
        path = fetch(store, images.sha256, cache_folder("datasets"))
        self._images: Pixels = np.load(path, mmap_mode="r", allow_pickle=False)

    def read(self, shard: Shard) -> Pixels:
        return np.asarray(self._images[shard.start : shard.stop])
