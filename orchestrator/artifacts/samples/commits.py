"""What makes a shard of a sample set exist, and what fixes the bits of the whole set."""

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Literal

from orchestrator.artifacts.samples.decisions import SET_DECISIONS
from orchestrator.jobs.decisions import Decisions
from orchestrator.store.codec import Codec

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


SHARD_COMMIT = Codec(ShardCommit, "commit of a shard")


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
