"""What makes a shard of a sample set exist, and what fixes the bits of the whole set."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Literal

from orchestrator.artifacts.samples.decisions import SET_DECISIONS
from orchestrator.errors import ShardDamagedError
from orchestrator.jobs.decisions import Decisions

FORMAT_VERSION = 1
Format = Literal["webdataset", "npy"]
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


def origin_of(decisions: Decisions) -> SetOrigin:
    """Return what fixes a set's bits, from what was decided once for the job.

    Raises:
        StoredFormError: That cannot be read, or is of a newer version.
    """
    fixed = {key: value for key, value in decisions.values.items() if key not in _NOT_FIXING}
    text = json.dumps(fixed, sort_keys=True)
    decided = SET_DECISIONS.of(decisions.values)
    return SetOrigin(
        checkpoint_sha256=decided.model.commit_sha256,
        seed=int(str(decided.sampling["seed"])),
        decisions_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
