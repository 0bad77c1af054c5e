"""The shards of a sample set in the store: how one is packed, committed once, and read back.

The images go first, as one object under a name of its own below the attempt's folder. One small
put-if-absent object at the job's key then names it with its hashes: only that makes the shard
exist. A copy that comes second removes its own data and changes nothing.
"""

import hashlib
import io
import itertools
import json
import logging
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.images import decode_png, encode_png
from orchestrator.artifacts.samples.decisions import SET_DECISIONS
from orchestrator.errors import (
    ConditionFailedError,
    DatasetError,
    ObjectNotFoundError,
    ShardDamagedError,
)
from orchestrator.jobs.decisions import Decisions
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
Format = Literal["webdataset", "npy"]
_SUFFIXES: Mapping[str, str] = {"webdataset": "tar", "npy": "npy"}
_LABEL_SUFFIX = ".cls"
Pixels = NDArray[np.uint8]
# Who decided first, and in how many images and shards they are cut, changes no pixel.
_NOT_FIXING = frozenset({"attempt", "format_version", "num_samples", "shard_size"})


@dataclass(frozen=True, kw_only=True)
class SetOrigin:
    """What fixes the bits of a set; all of its shards share it.

    Attributes:
        checkpoint_sha256: Hash of the checkpoint.
        seed: Of the noise.
        decisions_sha256: Hash of what was decided once for the job.
    """

    checkpoint_sha256: str
    seed: int
    decisions_sha256: str


@dataclass(frozen=True, kw_only=True)
class ManifestEntry:
    """What a manifest says of a shard.

    Attributes:
        index: Its number in the plan.
        start: Its first image.
        stop: One past its last image.
        data_key: Where its images lie.
        size_bytes: Of that object.
        sha256: Of that object.
        pixel_sha256: Of the decoded uint8 NHWC pixels in the order of the images.
        attempt: The attempt that drew it.
    """

    index: int
    start: int
    stop: int
    data_key: str
    size_bytes: int
    sha256: str
    pixel_sha256: str
    attempt: int

    @classmethod
    def of(cls, commit: "ManifestEntry") -> "ManifestEntry":
        """Return what is said of a committed shard, and no more."""
        return ManifestEntry(**{f.name: getattr(commit, f.name) for f in fields(ManifestEntry)})


@dataclass(frozen=True, kw_only=True)
class ShardCommit(ManifestEntry):
    """What makes a shard exist.

    Attributes:
        image_shape: (H, W, C).
        format: How the images are packed.
        origin: What fixed its bits.
        worker: The worker that drew it.
        seconds: Worker-seconds that it took.
        frames_key: Where the trajectories of its first images lie, or "".
        labels_sha256: Hash of the labels, as `hash_labels` gives it; "" of a set without.
    """

    image_shape: tuple[int, int, int]
    format: Format
    origin: SetOrigin
    worker: str
    seconds: float
    frames_key: str = ""
    labels_sha256: str = ""

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, body: bytes, key: str) -> "ShardCommit":
        """Read a commit; keys of later versions are ignored. Raises: ShardDamagedError."""
        try:
            blob = json.loads(body)
            if blob["format_version"] > FORMAT_VERSION:
                raise ShardDamagedError(f"{key} has the unknown format {blob['format_version']}")
            height, width, channels = (int(size) for size in blob["image_shape"])
            blob.setdefault("labels_sha256", "")
            known = {name: blob[name] for name in cls.__dataclass_fields__}
            known["image_shape"] = (height, width, channels)
            known["origin"] = SetOrigin(
                **{name: blob["origin"][name] for name in SetOrigin.__dataclass_fields__}
            )
            return cls(**known)
        except (ValueError, KeyError, TypeError) as error:
            raise ShardDamagedError(f"{key} is not the commit of a shard") from error


def suffix_of(shard_format: Format) -> str:
    """Return the ending of a shard's file name."""
    return _SUFFIXES[shard_format]


def origin_of(decisions: Decisions) -> SetOrigin:
    """Return what fixes a set's bits, from what was decided once for the job.

    Raises:
        StoredFormError: That cannot be read, or is of a newer version.
    """
    fixed = {key: value for key, value in decisions.values.items() if key not in _NOT_FIXING}
    decided = SET_DECISIONS.of(decisions.values)
    return SetOrigin(
        checkpoint_sha256=decided.model.commit_sha256,
        seed=int(str(decided.sampling["seed"])),
        decisions_sha256=hash_bytes(json.dumps(fixed, sort_keys=True).encode()),
    )


def hash_bytes(body: bytes) -> str:
    """Return the SHA-256 of some bytes."""
    return hashlib.sha256(body).hexdigest()


def encode_array(array: Pixels) -> bytes:
    """Return an array as the bytes of an .npy file."""
    packed = io.BytesIO()
    np.save(packed, np.ascontiguousarray(array), allow_pickle=False)
    return packed.getvalue()


def hash_pixels(pixels: Pixels) -> str:
    """Return the SHA-256 of uint8 NHWC pixels in index order."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def encode_shard(
    pixels: Pixels,
    start: int,
    shard_format: Format,
    labels: NDArray[np.int64] | None = None,
) -> bytes:
    """Pack the images of a shard; equal images give equal bytes.

    Args:
        pixels: (N, H, W, C) uint8 with 1 to 4 channels.
        start: Index of the first image.
        shard_format: "webdataset" is a tar of PNGs named by index, "npy" one array.
        labels: (N,) int64, which a tar holds beside each PNG as `.cls`; None for none.
    """
    if shard_format == "npy":
        return encode_array(pixels)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for offset, image in enumerate(pixels):
            name = _image_name(start + offset)
            _add(tar, name, encode_png(image))
            if labels is not None:
                _add(tar, _label_name(name), str(int(labels[offset])).encode())
    return packed.getvalue()


def _add(tar: tarfile.TarFile, name: str, body: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(body)
    tar.addfile(member, io.BytesIO(body))


def decode_shard(body: bytes, commit: ShardCommit) -> Pixels:
    """Unpack the images of a shard and prove that they are the committed ones.

    Returns:
        (N, H, W, C) uint8 in index order.

    Raises:
        ShardDamagedError: Bytes, names, number, order, shape or pixels are not as committed.
    """
    where = f"shard {commit.index} ({commit.data_key})"
    if len(body) != commit.size_bytes:
        raise ShardDamagedError(f"{where} has {len(body)} bytes instead of {commit.size_bytes}")
    if hash_bytes(body) != commit.sha256:
        raise ShardDamagedError(f"{where} is damaged: its SHA-256 is not the committed one")
    try:
        pixels = np.load(io.BytesIO(body)) if commit.format == "npy" else _untar(body, commit)
    except (DatasetError, tarfile.TarError, ValueError, EOFError) as error:
        raise ShardDamagedError(f"{where} cannot be decoded: {error}") from error
    expected = (commit.stop - commit.start, *commit.image_shape)
    if pixels.shape != expected or pixels.dtype != np.uint8:
        raise ShardDamagedError(f"{where} holds {pixels.shape} {pixels.dtype}, not {expected}")
    if hash_pixels(pixels) != commit.pixel_sha256:
        raise ShardDamagedError(f"{where} has other pixels than were committed")
    return pixels


def _untar(body: bytes, commit: ShardCommit) -> Pixels:
    images, labels = [], []
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:") as tar:
        for member, wanted in zip(tar, _member_names(commit), strict=False):
            stream = tar.extractfile(member)
            if member.name != wanted or stream is None:
                raise ShardDamagedError(
                    f"shard {commit.index} has {member.name} where {wanted} belongs"
                )
            if wanted.endswith(_LABEL_SUFFIX):
                labels.append(int(stream.read()))
            else:
                images.append(decode_png(stream.read(), member.name))
    if commit.labels_sha256 and hash_labels(labels) != commit.labels_sha256:
        raise ShardDamagedError(f"shard {commit.index} has other labels than were committed")
    return np.stack(images)


def _member_names(commit: ShardCommit) -> Iterator[str]:
    """Yield the names that a tar's members must have, without an end: surplus shows by number."""
    for index in itertools.count(commit.start):
        yield _image_name(index)
        if commit.labels_sha256:
            yield _label_name(_image_name(index))


def hash_labels(labels: Sequence[int]) -> str:
    """Return the SHA-256 of labels in the order of the images."""
    return hash_bytes(json.dumps(list(labels)).encode())


def _label_name(image_name: str) -> str:
    return f"{image_name.removesuffix('.png')}{_LABEL_SUFFIX}"


def _image_name(index: int) -> str:
    return f"{index:09d}.png"


class SampleShards:
    """The shards of one job's sample set."""

    def __init__(self, store: ObjectStore, paths: JobPaths) -> None:
        self._store = store
        self._paths = paths

    def commit(self, own: ShardCommit) -> ShardCommit:
        """Make data that are in the store the shard, unless it is committed already.

        Doing it again with the same data is doing it once, so a caller may repeat it after an
        outage that leaves open whether it happened.

        Returns:
            The commit that stands: this one, or an earlier copy's; then these data are removed.

        Raises:
            ShardDamagedError: What stands cannot be read or has another origin.
        """
        key, body = self._paths.shard(own.index), json.dumps(own.to_json()).encode()
        while True:
            try:
                self._store.put(key, body, if_absent=True)
                return own
            except ConditionFailedError:
                standing = self.find(own.index)
            if standing is not None:
                break
        if standing.data_key != own.data_key:
            logger.info("shard=%d is committed by %s", own.index, standing.worker)
            self.delete_data(own, spared=standing)
        _check_same_images(standing, own)
        return standing

    def find(self, index: int) -> ShardCommit | None:
        """Return a shard's commit, or None. Raises: ShardDamagedError."""
        key = self._paths.shard(index)
        try:
            commit = ShardCommit.from_json(self._store.get(key).body, key)
        except ObjectNotFoundError:
            return None
        if commit.index != index:
            raise ShardDamagedError(f"{key} is the commit of shard {commit.index}")
        return commit

    def indices(self) -> Iterator[int]:
        """Yield the numbers of the shards that are committed, ascending."""
        prefix = f"{self._paths.samples}shard-"
        names = (info.key.removeprefix(prefix) for info in self._store.list_objects(prefix))
        numbers = (name.removesuffix(".json") for name in names)
        yield from sorted(int(number) for number in numbers if number.isdigit())

    def read(self, commit: ShardCommit) -> Pixels:
        """Return a shard's images, verified: (N, H, W, C) uint8. Raises: ShardDamagedError."""
        return self.read_version(commit)[0]

    def read_version(self, commit: ShardCommit) -> tuple[Pixels, str]:
        """Return a shard's images, verified, and the ETag of what was read.

        Raises:
            ShardDamagedError: They are missing, or not what was committed.
        """
        try:
            stored = self._store.get(commit.data_key)
        except ObjectNotFoundError as error:
            raise ShardDamagedError(
                f"shard {commit.index}: its data {commit.data_key} are missing"
            ) from error
        return decode_shard(stored.body, commit), stored.etag

    def present_versions(self, data_keys: Iterable[str]) -> dict[str, str]:
        """Return the ETags of what lies under data keys now; those of what is gone are missing."""
        folders = sorted({key.rpartition("/")[0] + "/" for key in data_keys})
        return {
            info.key: info.etag for folder in folders for info in self._store.list_objects(folder)
        }

    def read_frames(self, commit: ShardCommit) -> Pixels:
        """Return the trajectories of a shard's first images: (K, F, H, W, C) uint8."""
        body = self._store.get(commit.frames_key).body
        frames: Pixels = np.load(io.BytesIO(body), allow_pickle=False)
        return frames

    def withdraw(self, index: int) -> None:
        """Remove a shard's commit, and its data where they can be named."""
        try:
            commit = self.find(index)
        except ShardDamagedError:
            commit = None
        self._store.delete(self._paths.shard(index))
        if commit is not None:
            self.delete_data(commit)

    def delete_data(self, commit: ShardCommit, spared: ShardCommit | None = None) -> None:
        """Remove the objects that a commit names, but none that `spared` names."""
        folder = f"{self._paths.folder}attempts/"
        kept = {spared.data_key, spared.frames_key} if spared else set()
        for key in {commit.data_key, commit.frames_key} - kept:
            if key.startswith(folder):
                self._store.delete(key)


def _check_same_images(standing: ShardCommit, own: ShardCommit) -> None:
    if standing.origin != own.origin:
        raise ShardDamagedError(
            f"shard {own.index} was committed from another checkpoint, seed or decision; "
            "submit under a new --id"
        )
    if standing.pixel_sha256 != own.pixel_sha256:
        logger.error(
            "shard=%d: %s and %s drew different pixels from the same numbers",
            own.index,
            standing.worker,
            own.worker,
        )
