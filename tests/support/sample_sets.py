"""Whole sample sets and data sets in a store, without a training or a fleet."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ddpm.config import SamplingConfig
from orchestrator.artifacts.datasets.ingest import ingest
from orchestrator.artifacts.samples.commits import ShardCommit, origin_of
from orchestrator.artifacts.samples.encoding import (
    Pixels,
    encode_shard,
    hash_bytes,
    hash_labels,
    hash_pixels,
)
from orchestrator.artifacts.samples.labels import LabelRule
from orchestrator.artifacts.samples.manifest import SetReader, put_manifest
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.jobs.decisions import Decisions
from orchestrator.jobs.units import Shard, plan_shards
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore
from tests.support.models import model_of

DECISIONS = Decisions({"model": asdict(model_of("t")), "sampling": {"seed": 0}})


def put_set(
    store: MemoryStore,
    job_id: str,
    pixels: Pixels,
    shard_size: int,
    *,
    whole: bool = True,
    rule: LabelRule | None = None,
) -> None:
    """Put a sample job whose set holds some images; not whole: without its manifest."""
    decisions = Decisions({**DECISIONS.values, **({"labels": rule.to_json()} if rule else {})})
    paths = JobPaths(job_id)
    spec = SampleJob(
        kind="sample",
        name=job_id,
        model=ModelRef(job="digits"),
        num_samples=len(pixels),
        sampling=SamplingConfig(microbatch_size=shard_size),
        shard_size=shard_size,
    )
    store.put(paths.spec, spec.model_dump_json().encode())
    store.put(paths.decisions, decisions.encode())
    shards, plan = SampleShards(store, paths), plan_shards(len(pixels), shard_size)
    for shard in plan:
        shards.commit(_put(store, paths, shard, pixels[shard.start : shard.stop], decisions, rule))
    if whole:
        reader = SetReader(shards, plan, origin_of(decisions), num_first=1, rule=rule)
        for shard in plan:
            reader.read(shard.index)
        put_manifest(store, paths, reader.manifest(paths.job_id, decisions))


def _put(
    store: MemoryStore,
    paths: JobPaths,
    shard: Shard,
    pixels: Pixels,
    decisions: Decisions,
    rule: LabelRule | None,
) -> ShardCommit:
    labels = None if rule is None else rule.of(shard.start, shard.stop)
    body = encode_shard(pixels, shard.start, "npy", labels)
    key = f"{paths.attempt(1).data(str(shard.index))}shard-{shard.index:06d}.npy"
    store.put(key, body)
    height, width, channels = pixels.shape[1:]
    return ShardCommit(
        index=shard.index,
        start=shard.start,
        stop=shard.stop,
        data_key=key,
        size_bytes=len(body),
        sha256=hash_bytes(body),
        pixel_sha256=hash_pixels(pixels),
        image_shape=(height, width, channels),
        format="npy",
        origin=origin_of(decisions),
        attempt=1,
        worker="1-worker-0",
        seconds=1.0,
        labels_sha256="" if labels is None else hash_labels(labels.tolist()),
    )


def put_dataset(
    store: MemoryStore, folder: Path, pixels: Pixels, labels: Sequence[int] = ()
) -> str:
    """Take some images, perhaps with their classes, into a store; return the data set's hash."""
    path = folder / "images.npz"
    if labels:
        np.savez(path, images=pixels, labels=np.array(labels))
    else:
        np.savez(path, images=pixels)
    mode = "auto" if labels else "none"
    return ingest(str(path), store, folder / "cache", labels=mode).sha256
