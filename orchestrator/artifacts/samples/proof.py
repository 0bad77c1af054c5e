"""The proof that a shard is the one of its set, for all who read one: driver, verify, export."""

from dataclasses import dataclass

from orchestrator.artifacts.samples.commits import SetOrigin, ShardCommit
from orchestrator.artifacts.samples.encoding import Pixels, hash_labels
from orchestrator.artifacts.samples.labels import LabelRule
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.errors import ShardDamagedError
from orchestrator.jobs.units import ShardPlan


@dataclass(frozen=True)
class ProvenShard:
    """A shard that was reread and is what was committed.

    Attributes:
        commit: What makes it exist.
        pixels: (n, H, W, C) uint8.
        etag: Of the object that they were read from.
    """

    commit: ShardCommit
    pixels: Pixels
    etag: str


@dataclass(frozen=True)
class SetProof:
    """What the shards of a set have to fit.

    Attributes:
        shards: Where they are committed.
        plan: How the set is cut.
        origin: What fixes its bits.
        rule: Which image has which label; None for a set without.
    """

    shards: SampleShards
    plan: ShardPlan
    origin: SetOrigin
    rule: LabelRule | None = None

    def prove(self, index: int) -> ProvenShard:
        """Read a shard and check it.

        Raises:
            ShardDamagedError: It is missing, of another set, or not what was committed.
        """
        commit = self.shards.find(index)
        if commit is None:
            raise ShardDamagedError(f"shard {index} is missing")
        self._check_fits(commit)
        pixels, etag = self.shards.read_version(commit)
        return ProvenShard(commit, pixels, etag)

    def _check_fits(self, commit: ShardCommit) -> None:
        shard = self.plan[commit.index]
        if (commit.start, commit.stop) != (shard.start, shard.stop):
            raise ShardDamagedError(
                f"shard {shard.index} was committed for images {commit.start}..{commit.stop - 1}, "
                f"not {shard.start}..{shard.stop - 1}"
            )
        if commit.origin != self.origin:
            raise ShardDamagedError(
                f"shard {shard.index} was drawn from another checkpoint, seed or decision "
                "than its set"
            )
        labels = hash_labels(self.rule.of(shard.start, shard.stop).tolist()) if self.rule else ""
        if commit.labels_sha256 != labels:
            raise ShardDamagedError(f"shard {shard.index} has other labels than its set gives it")
