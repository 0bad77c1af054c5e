"""A shard is committed once, and what is read back is what was committed."""

import io
import json
import tarfile
from dataclasses import asdict, replace

import numpy as np
import pytest

from orchestrator.artifacts.samples.commits import Format, SetOrigin, ShardCommit, origin_of
from orchestrator.artifacts.samples.encoding import (
    Pixels,
    decode_shard,
    encode_shard,
    hash_bytes,
    hash_pixels,
)
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.errors import ShardDamagedError
from orchestrator.jobs.decisions import Decisions
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore
from tests.support.models import model_of

ORIGIN = SetOrigin(checkpoint_sha256="c", seed=1, decisions_sha256="d")
PATHS = JobPaths("set")


def pixels_of(num_images: int = 5, channels: int = 3) -> Pixels:
    """Return images that all differ: (N, 4, 6, C) uint8."""
    generator = np.random.default_rng(channels)
    return generator.integers(0, 256, (num_images, 4, 6, channels), dtype=np.uint8)


def commit_of(
    pixels: Pixels, body: bytes, *, data_key: str, shard_format: Format = "webdataset"
) -> ShardCommit:
    """Return the commit of shard 2 of a set with shards of five images."""
    height, width, channels = pixels.shape[1:]
    return ShardCommit(
        index=2,
        start=10,
        stop=10 + len(pixels),
        data_key=data_key,
        size_bytes=len(body),
        sha256=hash_bytes(body),
        pixel_sha256=hash_pixels(pixels),
        image_shape=(height, width, channels),
        format=shard_format,
        origin=ORIGIN,
        attempt=1,
        worker="1-worker-0",
        seconds=1.5,
    )


def put_copy(store: MemoryStore, name: str, pixels: Pixels) -> ShardCommit:
    """Store the data of one copy of shard 2 and return its commit, not yet made."""
    body = encode_shard(pixels, 10, "webdataset")
    key = f"{PATHS.attempt(1).data(name)}shard-000002.tar"
    store.put(key, body)
    return commit_of(pixels, body, data_key=key)


@pytest.mark.parametrize("shard_format", ["webdataset", "npy"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_shard_reads_back_as_it_was(shard_format: Format, channels: int) -> None:
    """Grey, grey with alpha, RGB and RGBA pass through both formats without a change."""
    pixels = pixels_of(channels=channels)
    body = encode_shard(pixels, 10, shard_format)
    commit = commit_of(pixels, body, data_key="k", shard_format=shard_format)
    assert np.array_equal(decode_shard(body, commit), pixels)


def test_equal_images_give_equal_bytes() -> None:
    """No time stamp or owner slips into a tar, so two copies of a shard have one hash."""
    pixels = pixels_of()
    assert encode_shard(pixels, 0, "webdataset") == encode_shard(pixels, 0, "webdataset")


def test_images_are_named_by_their_index() -> None:
    """A reader of one tar knows which images of the set it holds."""
    body = encode_shard(pixels_of(2), 10, "webdataset")
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        assert tar.getnames() == ["000000010.png", "000000011.png"]


def test_damaged_byte_is_found() -> None:
    """A flipped bit on a disk must not end up in an evaluation."""
    pixels = pixels_of()
    body = encode_shard(pixels, 10, "npy")
    commit = commit_of(pixels, body, data_key="k", shard_format="npy")
    damaged = body[:-1] + bytes([body[-1] ^ 1])
    with pytest.raises(ShardDamagedError, match="SHA-256"):
        decode_shard(damaged, commit)
    with pytest.raises(ShardDamagedError, match="bytes instead of"):
        decode_shard(body[:-1], commit)


def test_wrong_order_shape_or_pixels_are_found() -> None:
    """A writer that commits what it did not draw is caught even though its hashes fit."""
    pixels = pixels_of()
    swapped = encode_shard(pixels[::-1], 10, "webdataset")
    with pytest.raises(ShardDamagedError, match="other pixels"):
        decode_shard(swapped, commit_of(pixels, swapped, data_key="k"))
    shifted = encode_shard(pixels, 11, "webdataset")
    with pytest.raises(ShardDamagedError, match="belongs"):
        decode_shard(shifted, commit_of(pixels, shifted, data_key="k"))
    short = encode_shard(pixels[:-1], 10, "webdataset")
    with pytest.raises(ShardDamagedError, match="holds"):
        decode_shard(short, commit_of(pixels, short, data_key="k"))
    garbage = b"no tar at all"
    with pytest.raises(ShardDamagedError, match="decoded"):
        decode_shard(garbage, commit_of(pixels, garbage, data_key="k"))


def test_late_copy_changes_nothing_and_removes_only_its_own_data() -> None:
    """The slower of two workers, or one of an old attempt that wakes up, must leave no trace."""
    store, pixels = MemoryStore(), pixels_of()
    shards = SampleShards(store, PATHS)
    first, second = put_copy(store, "a", pixels), put_copy(store, "b", pixels)
    assert shards.commit(first) == first
    before = dict(store.objects)
    assert shards.commit(second) == first
    del before[second.data_key]
    assert store.objects == before


def test_committing_again_keeps_the_data() -> None:
    """After a time-out a worker cannot know whether its commit happened, and asks again."""
    store = MemoryStore()
    shards = SampleShards(store, PATHS)
    own = put_copy(store, "a", pixels_of())
    assert shards.commit(own) == shards.commit(own) == own
    assert np.array_equal(shards.read(own), pixels_of())


def test_shard_of_another_origin_is_an_error() -> None:
    """Images of another seed or checkpoint must not be mixed in silently."""
    store = MemoryStore()
    shards = SampleShards(store, PATHS)
    shards.commit(put_copy(store, "a", pixels_of()))
    other = replace(put_copy(store, "b", pixels_of()), origin=replace(ORIGIN, seed=2))
    with pytest.raises(ShardDamagedError, match="another checkpoint, seed or decision"):
        shards.commit(other)
    assert shards.find(2) is not None


def test_commit_survives_the_store() -> None:
    """The commit is all that a later process knows of a shard."""
    store = MemoryStore()
    shards = SampleShards(store, PATHS)
    own = shards.commit(put_copy(store, "a", pixels_of()))
    assert shards.find(2) == own
    assert list(shards.indices()) == [2]
    assert shards.find(3) is None


@pytest.mark.parametrize("body", [b"", b"{}", b'{"format_version": 99}', b"[1]"])
def test_unreadable_commit_is_told(body: bytes) -> None:
    """A torn or foreign object at a commit's key is damage, not a crash."""
    store = MemoryStore()
    store.put(PATHS.shard(2), body)
    with pytest.raises(ShardDamagedError, match=f"commit of a shard {PATHS.shard(2)}"):
        SampleShards(store, PATHS).find(2)


def test_a_commit_of_before_labels_is_read_and_its_keys_are_still_written() -> None:
    """Two versions may draw one set: each must understand what the other committed."""
    store = MemoryStore()
    own = SampleShards(store, PATHS).commit(put_copy(store, "a", pixels_of()))
    written = json.loads(store.get(PATHS.shard(2)).body)
    assert written == {"format_version": 1, **asdict(own), "image_shape": [4, 6, 3]}
    del written["labels_sha256"]
    store.put(PATHS.shard(2), json.dumps({**written, "of a later version": 1}).encode())
    assert SampleShards(store, PATHS).find(2) == own


def test_withdrawing_never_touches_other_jobs() -> None:
    """A forged commit that names somebody else's object cannot make us delete it."""
    store = MemoryStore()
    shards = SampleShards(store, PATHS)
    own = replace(put_copy(store, "a", pixels_of()), data_key="jobs/other/attempts/1/data/x")
    store.put("jobs/other/attempts/1/data/x", b"theirs")
    shards.commit(own)
    shards.withdraw(2)
    assert shards.find(2) is None
    assert store.exists("jobs/other/attempts/1/data/x")


def test_origin_does_not_depend_on_who_decided() -> None:
    """The number of the attempt that decided changes no pixel; the sampler does."""
    values = {"model": asdict(model_of("t")), "sampling": {"seed": 3, "num_steps": 10}}
    first, second = (origin_of(Decisions({**values, "attempt": number})) for number in (1, 2))
    assert first == second
    changed = {**values, "sampling": {"seed": 3, "num_steps": 11}}
    assert origin_of(Decisions(changed)) != first
