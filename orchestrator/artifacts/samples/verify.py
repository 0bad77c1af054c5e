"""Proves that a sample set is whole, and mends what is not."""

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from orchestrator.artifacts.samples.commits import SetOrigin, ShardCommit, origin_of
from orchestrator.artifacts.samples.decisions import SET_DECISIONS
from orchestrator.artifacts.samples.encoding import Pixels
from orchestrator.artifacts.samples.labels import LabelRule
from orchestrator.artifacts.samples.manifest import SetHash, SetManifest, read_manifest
from orchestrator.artifacts.samples.proof import SetProof
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.counts import counted
from orchestrator.errors import BadInputError, ShardDamagedError
from orchestrator.jobs.decisions import read_decisions
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_spec
from orchestrator.jobs.units import Shard, ShardPlan, plan_shards
from orchestrator.specs.sample import SampleJob
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SetReport:
    """What a proof of a sample set found.

    Attributes:
        job_id: The sample job.
        num_samples: Images that there have to be.
        num_images: Images that were read and are what was committed.
        num_shards: Shards that there have to be.
        set_sha256: Hash over the pixels in index order; "" if a shard is missing or damaged.
        problems: One line each.
        bad_shards: Shards that are missing or damaged.
        manifest_is_bad: Whether the manifest is missing or does not match the shards.
    """

    job_id: str
    num_samples: int
    num_images: int
    num_shards: int
    set_sha256: str = ""
    problems: tuple[str, ...] = ()
    bad_shards: tuple[int, ...] = ()
    manifest_is_bad: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether there are exactly the images that were asked for, in order and undamaged."""
        return not self.problems


@dataclass
class _Findings:
    set_hash: SetHash = field(default_factory=SetHash)
    num_images: int = 0
    problems: list[str] = field(default_factory=list)
    bad_shards: list[int] = field(default_factory=list)
    entries: dict[int, str] = field(default_factory=dict)


class SampleSet:
    """The sample set of one job, as the store holds it.

    Raises:
        BadInputError: The job draws no samples.
        JobNotFoundError: There is no such job.
    """

    def __init__(self, store: ObjectStore, job_id: str) -> None:
        spec = read_spec(RecordStore(store), job_id)
        if not isinstance(spec, SampleJob):
            raise BadInputError(f"job {job_id} is a {spec.kind} job and has no samples")
        self.paths = JobPaths(job_id)
        self.spec = spec
        self.plan: ShardPlan = plan_shards(spec.num_samples, spec.shard_size)
        self.shards = SampleShards(store, self.paths)
        self.store = store

    @property
    def origin(self) -> SetOrigin | None:
        """What the set comes from; None if nothing was ever drawn."""
        decided = read_decisions(self.store, self.paths)
        return origin_of(decided) if decided else None

    @functools.cached_property
    def rule(self) -> LabelRule | None:
        """Which image has which label; None for a set without."""
        decided = read_decisions(self.store, self.paths)
        return SET_DECISIONS.of(decided.values).labels if decided else None

    def manifest(self) -> SetManifest:
        """Return the manifest.

        Raises:
            BadInputError: The set is not whole.
            ShardDamagedError: The manifest cannot be read.
        """
        manifest = read_manifest(self.store, self.paths)
        if manifest is None:
            done = sum(1 for _ in self.shards.indices())
            raise BadInputError(
                f"the set of job {self.paths.job_id} is not whole: "
                f"{done} of {counted(len(self.plan), 'shard')} are in"
            )
        return manifest

    def read(self, shard: Shard, origin: SetOrigin) -> tuple[ShardCommit, Pixels]:
        """Return a shard's commit and images, verified. Raises: ShardDamagedError."""
        proven = SetProof(self.shards, self.plan, origin, self.rule).prove(shard.index)
        return proven.commit, proven.pixels

    def verified_shards(self) -> Iterator[tuple[ShardCommit, Pixels]]:
        """Yield the shards of a whole set in order, each verified.

        Raises:
            ShardDamagedError: A shard is not what was committed, or all are not what was declared.
            BadInputError: The set is not whole.
        """
        manifest, origin, set_hash = self.manifest(), self.origin, SetHash()
        if origin is None:
            raise ShardDamagedError(f"{self.paths.decisions} is missing")
        for shard in self.plan:
            commit, pixels = self.read(shard, origin)
            set_hash.add(pixels)
            yield commit, pixels
        if set_hash.hexdigest != manifest.set_sha256:
            raise ShardDamagedError("the images are not those that the manifest was made of")

    def images(self, start: int, stop: int) -> Pixels:
        """Return images start to stop - 1 of a set, be it whole or still being drawn.

        Reads the shards that they lie in and no other.

        Returns:
            (stop - start, H, W, C) uint8, each shard verified by its hashes.

        Raises:
            BadInputError: The set has no such images, or some of them are not drawn yet.
            ShardDamagedError: A shard is not what was committed.
        """
        total, origin = self.plan.num_samples, self.origin
        if not 0 <= start < stop <= total:
            raise BadInputError(f"the set has images 0 to {total - 1}, not {start} to {stop - 1}")
        parts: list[Pixels] = []
        for index in range(start // self.spec.shard_size, -(-stop // self.spec.shard_size)):
            shard = self.plan[index]
            if origin is None or self.shards.find(index) is None:
                raise BadInputError(f"images {shard.start} to {shard.stop - 1} are not drawn yet")
            _, pixels = self.read(shard, origin)
            parts.append(pixels[max(0, start - shard.start) : stop - shard.start])
        return np.concatenate(parts)

    def first_images(self, count: int) -> Pixels:
        """Return the first images of the set, (min(count, N), H, W, C) uint8.

        Raises:
            BadInputError: A shard of them is missing or damaged.
        """
        parts: list[Pixels] = []
        try:
            for _, pixels in self.verified_shards():
                parts.append(pixels)
                if sum(len(part) for part in parts) >= count:
                    break
        except ShardDamagedError as error:
            raise BadInputError(f"the set of job {self.paths.job_id}: {error}") from error
        return np.concatenate(parts)[:count]


def verify_samples(store: ObjectStore, job_id: str) -> SetReport:
    """Reread a job's whole sample set and say what is wrong with it.

    Raises:
        BadInputError: The job draws no samples.
        JobNotFoundError: There is no such job.
    """
    samples = SampleSet(store, job_id)
    findings, origin = _Findings(), samples.origin
    if origin is None:
        findings.problems.append("nothing was drawn yet")
        findings.bad_shards += [shard.index for shard in samples.plan]
    else:
        for shard in samples.plan:
            _check_shard(samples, shard, origin, findings)
    _check_surplus(samples, findings)
    whole = not findings.problems
    manifest_problem = _manifest_problem(samples, findings) if whole else None
    if manifest_problem is not None:
        findings.problems.append(manifest_problem)
    return SetReport(
        job_id=job_id,
        num_samples=samples.spec.num_samples,
        num_images=findings.num_images,
        num_shards=len(samples.plan),
        set_sha256=findings.set_hash.hexdigest if whole else "",
        problems=tuple(findings.problems),
        bad_shards=tuple(findings.bad_shards),
        manifest_is_bad=manifest_problem is not None,
    )


def repair_samples(store: ObjectStore, job_id: str) -> SetReport:
    """Withdraw what is missing or damaged, so that the next attempt draws it and nothing else.

    The job has to be queued again afterwards, unless the report says that the set is whole.

    Returns:
        What was found, before anything was withdrawn.

    Raises:
        BadInputError: The job draws no samples, or was queued again meanwhile.
    """
    report = verify_samples(store, job_id)
    if report.is_whole:
        return report
    samples = SampleSet(store, job_id)
    state = RecordStore(store).read(job_id).record.state
    if not state.has_ended:
        raise BadInputError(f"job {job_id} is {state} now; repair it once it has ended")
    missing = set(report.bad_shards) - set(samples.shards.indices())
    damaged = [index for index in report.bad_shards if _is_damaged(samples, index)]
    if missing or damaged or report.manifest_is_bad:
        store.delete(samples.paths.manifest)
    for index in damaged:
        samples.shards.withdraw(index)
        logger.info("job=%s shard=%d is withdrawn", job_id, index)
    return report


def _is_damaged(samples: SampleSet, index: int) -> bool:
    """Look again: reading a whole set takes minutes, in which others may have mended a part."""
    if index >= len(samples.plan) or samples.origin is None:
        return True
    try:
        if samples.shards.find(index) is None:
            return False  # missing: there is nothing to withdraw
        samples.read(samples.plan[index], samples.origin)
    except ShardDamagedError:
        return True
    return False


def _check_shard(samples: SampleSet, shard: Shard, origin: SetOrigin, findings: _Findings) -> None:
    try:
        commit, pixels = samples.read(shard, origin)
    except ShardDamagedError as error:
        findings.problems.append(str(error))
        findings.bad_shards.append(shard.index)
        return
    findings.set_hash.add(pixels)
    findings.num_images += len(pixels)
    findings.entries[shard.index] = commit.pixel_sha256


def _check_surplus(samples: SampleSet, findings: _Findings) -> None:
    for index in samples.shards.indices():
        if index >= len(samples.plan):
            findings.problems.append(f"shard {index} is beyond the set's end")
            findings.bad_shards.append(index)


def _manifest_problem(samples: SampleSet, findings: _Findings) -> str | None:
    """Return what is wrong with the manifest of a set whose shards are all good."""
    where = samples.paths.manifest
    try:
        manifest = read_manifest(samples.store, samples.paths)
    except ShardDamagedError as error:
        return str(error)
    if manifest is None:
        return f"{where} is missing"
    if manifest.set_sha256 != findings.set_hash.hexdigest:
        return f"{where} was made of other images"
    if manifest.labels != samples.rule:
        return f"{where} tells other labels than the set has"
    listed = {entry.index: entry.pixel_sha256 for entry in manifest.shards}
    if listed != findings.entries or manifest.num_samples != samples.spec.num_samples:
        return f"{where} does not list the shards that are there"
    return None
