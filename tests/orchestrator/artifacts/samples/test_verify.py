"""A set is proven whole or every fault is named; mending touches only what is broken."""

import errno
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ddpm.config import SamplingConfig
from orchestrator.artifacts.images import decode_png
from orchestrator.artifacts.samples import verify
from orchestrator.artifacts.samples.commits import ShardCommit, origin_of
from orchestrator.artifacts.samples.encoding import Pixels, encode_shard, hash_bytes, hash_pixels
from orchestrator.artifacts.samples.export import ExportFormat, export_samples
from orchestrator.artifacts.samples.manifest import (
    SetHash,
    SetManifest,
    SetReader,
    put_manifest,
    read_manifest,
)
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.artifacts.samples.verify import SampleSet, repair_samples, verify_samples
from orchestrator.errors import BadInputError, JobNotFoundError, ShardDamagedError
from orchestrator.jobs.decisions import Decisions
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.units import Shard, plan_shards
from orchestrator.lifecycle.state import JobState
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore
from tests.support.models import model_of

JOB = "a-set"
PATHS = JobPaths(JOB)
NUM_SAMPLES, SHARD_SIZE = 11, 4
DECISIONS = Decisions({"model": asdict(model_of("t")), "sampling": {"seed": 0}})


def images() -> Pixels:
    """Return the set: (11, 4, 4, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (NUM_SAMPLES, 4, 4, 3), dtype=np.uint8)


def put_shard(store: MemoryStore, shard: Shard, pixels: Pixels, unique: str = "u") -> ShardCommit:
    """Store and commit one shard."""
    body = encode_shard(pixels, shard.start, "webdataset")
    key = f"{PATHS.attempt(1).data(f'{unique}-{shard.index}')}shard-{shard.index:06d}.tar"
    store.put(key, body)
    commit = ShardCommit(
        index=shard.index,
        start=shard.start,
        stop=shard.stop,
        data_key=key,
        size_bytes=len(body),
        sha256=hash_bytes(body),
        pixel_sha256=hash_pixels(pixels),
        image_shape=(4, 4, 3),
        format="webdataset",
        origin=origin_of(DECISIONS),
        attempt=1,
        worker="1-worker-0",
        seconds=1.0,
    )
    return SampleShards(store, PATHS).commit(commit)


@pytest.fixture
def store() -> MemoryStore:
    """A store with one whole set of three shards."""
    store = MemoryStore()
    spec = SampleJob(
        kind="sample",
        name="a-set",
        model=ModelRef(job="digits"),
        num_samples=NUM_SAMPLES,
        sampling=SamplingConfig(microbatch_size=4),
        shard_size=SHARD_SIZE,
    )
    store.put(PATHS.spec, spec.model_dump_json().encode())
    store.put(PATHS.decisions, DECISIONS.encode())
    plan = plan_shards(NUM_SAMPLES, SHARD_SIZE)
    for shard in plan:
        put_shard(store, shard, images()[shard.start : shard.stop])
    reader = SetReader(SampleShards(store, PATHS), plan, origin_of(DECISIONS), num_first=6)
    for shard in plan:
        reader.read(shard.index)
    put_manifest(store, PATHS, reader.manifest(JOB, DECISIONS))
    records = RecordStore(store)
    queued = records.read(JOB)
    records.move(queued, queued.record.moved_to(JobState.CANCELLED, at=store.now()))
    return store


def data_key(store: MemoryStore, index: int) -> str:
    """Return where a shard's images lie."""
    commit = SampleShards(store, PATHS).find(index)
    assert commit is not None
    return commit.data_key


def lose_commit(store: MemoryStore) -> None:
    """A shard was never committed."""
    store.delete(PATHS.shard(1))


def lose_data(store: MemoryStore) -> None:
    """Somebody cleaned up too much."""
    store.delete(data_key(store, 1))


def flip_bit(store: MemoryStore) -> None:
    """A disk went bad."""
    key = data_key(store, 1)
    body = bytearray(store.get(key).body)
    body[700] ^= 1
    store.put(key, bytes(body))


def tear_commit(store: MemoryStore) -> None:
    """The commit itself is damaged."""
    store.put(PATHS.shard(1), store.get(PATHS.shard(1)).body[:50])


def swap_shards(store: MemoryStore) -> None:
    """Shard 1 holds what belongs to shard 0, and says so."""
    store.put(PATHS.shard(1), store.get(PATHS.shard(0)).body)


def mix_origin(store: MemoryStore) -> None:
    """Shard 1 was drawn with another seed."""
    commit = json.loads(store.get(PATHS.shard(1)).body)
    commit["origin"]["seed"] = 99
    store.put(PATHS.shard(1), json.dumps(commit).encode())


FAULTS = [lose_commit, lose_data, flip_bit, tear_commit, swap_shards, mix_origin]


def test_whole_set_is_proven(store: MemoryStore) -> None:
    """The report says how many images there are, and the hash that anybody can compute."""
    report = verify_samples(store, JOB)
    expected = SetHash()
    expected.add(images())
    assert report.is_whole
    assert report.num_images == NUM_SAMPLES
    assert report.set_sha256 == expected.hexdigest
    manifest = read_manifest(store, PATHS)
    assert manifest is not None
    assert manifest.set_sha256 == expected.hexdigest


@pytest.mark.parametrize("fault", FAULTS)
def test_each_kind_of_damage_is_found(
    store: MemoryStore, fault: Callable[[MemoryStore], None]
) -> None:
    """What is wrong is named by its shard, and nothing else is accused."""
    fault(store)
    report = verify_samples(store, JOB)
    assert not report.is_whole
    assert report.bad_shards == (1,)
    assert report.num_images == NUM_SAMPLES - SHARD_SIZE
    assert len(report.problems) == 1
    assert "1" in report.problems[0]


@pytest.mark.parametrize("fault", FAULTS)
def test_repair_withdraws_only_what_is_broken(
    store: MemoryStore, fault: Callable[[MemoryStore], None]
) -> None:
    """The next attempt draws one shard, and the set is the same as before."""
    fault(store)
    kept = [store.objects[PATHS.shard(index)] for index in (0, 2)]
    assert repair_samples(store, JOB).bad_shards == (1,)
    assert [store.objects[PATHS.shard(index)] for index in (0, 2)] == kept
    assert list(SampleShards(store, PATHS).indices()) == [0, 2]
    assert read_manifest(store, PATHS) is None
    put_shard(store, Shard(1, 4, 8), images()[4:8], unique="again")
    report = verify_samples(store, JOB)
    assert report.manifest_is_bad
    assert not report.bad_shards
    assert report.num_images == NUM_SAMPLES


def test_repair_touches_nothing_of_a_job_that_was_queued_again(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the set takes minutes; whoever retries it meanwhile commits what was missing."""
    lose_commit(store)
    report = verify_samples(store, JOB)
    monkeypatch.setattr(verify, "verify_samples", lambda *_: report)
    put_shard(store, Shard(1, 4, 8), images()[4:8], unique="meanwhile")
    repair_samples(store, JOB)
    assert list(SampleShards(store, PATHS).indices()) == [0, 1, 2]
    records = RecordStore(store)
    ended = records.read(JOB)
    records.move(ended, ended.record.moved_to(JobState.QUEUED, at=store.now()))
    with pytest.raises(BadInputError, match="QUEUED now"):
        repair_samples(store, JOB)


def test_repair_leaves_a_whole_set_alone(store: MemoryStore) -> None:
    """Running it twice, or for nothing, costs nothing."""
    before = dict(store.objects)
    assert repair_samples(store, JOB).is_whole
    assert store.objects == before


@pytest.mark.parametrize("body", [b"", b"{}", b'{"format_version": 1, "set_sha256": "x"}'])
def test_bad_manifest_is_found(store: MemoryStore, body: bytes) -> None:
    """A manifest that tells another tale than the shards is worth nothing."""
    store.put(PATHS.manifest, body)
    report = verify_samples(store, JOB)
    assert report.manifest_is_bad
    assert not report.bad_shards


def test_surplus_shard_is_found(store: MemoryStore) -> None:
    """Exactly N images: one too many is as wrong as one too few."""
    store.put(PATHS.shard(3), store.get(PATHS.shard(2)).body)
    assert verify_samples(store, JOB).bad_shards == (3,)


def test_manifest_of_another_set_is_never_replaced(store: MemoryStore) -> None:
    """What was declared whole stays what it was."""
    before = store.get(PATHS.manifest).body
    with pytest.raises(ShardDamagedError, match="another set"):
        put_manifest(store, PATHS, SetManifest(set_sha256="other"))
    assert store.get(PATHS.manifest).body == before


def test_reader_keeps_the_first_images(store: MemoryStore) -> None:
    """The grid shows the set's first images, whatever the shards' size."""
    plan = plan_shards(NUM_SAMPLES, SHARD_SIZE)
    reader = SetReader(SampleShards(store, PATHS), plan, origin_of(DECISIONS), num_first=6)
    for shard in plan:
        reader.read(shard.index)
    assert np.array_equal(np.concatenate(reader.first_images), images()[:6])


def test_npz_is_what_fid_tools_take(store: MemoryStore, tmp_path: Path) -> None:
    """`arr_0`, uint8, NHWC, in index order, readable without pickle."""
    assert export_samples(store, JOB, "npz", tmp_path / "set.npz") == NUM_SAMPLES
    with np.load(tmp_path / "set.npz", allow_pickle=False) as archive:
        assert archive.files == ["arr_0"]
        assert archive["arr_0"].dtype == np.uint8
        assert np.array_equal(archive["arr_0"], images())
    assert zipfile.ZipFile(tmp_path / "set.npz").testzip() is None


def test_png_folder_holds_every_image(store: MemoryStore, tmp_path: Path) -> None:
    """The names sort in index order."""
    export_samples(store, JOB, "png", tmp_path / "pngs")
    files = sorted((tmp_path / "pngs").iterdir())
    assert [path.name for path in files] == [f"{index:09d}.png" for index in range(NUM_SAMPLES)]
    read = np.stack([decode_png(path.read_bytes()) for path in files])
    assert np.array_equal(read, images())


def test_parquet_holds_index_and_image(store: MemoryStore, tmp_path: Path) -> None:
    """One row an image, in order."""
    export_samples(store, JOB, "parquet", tmp_path / "set.parquet")
    table = pq.read_table(tmp_path / "set.parquet")
    assert table["index"].to_pylist() == list(range(NUM_SAMPLES))
    read = np.stack([decode_png(png) for png in table["png"].to_pylist()])
    assert np.array_equal(read, images())


def test_export_replaces_nothing_unasked(store: MemoryStore, tmp_path: Path) -> None:
    """Yesterday's set under the same name is worth keeping."""
    output = tmp_path / "set.npz"
    output.write_bytes(b"yesterday's")
    with pytest.raises(BadInputError, match="exists"):
        export_samples(store, JOB, "npz", output)
    assert output.read_bytes() == b"yesterday's"
    export_samples(store, JOB, "npz", output, overwrite=True)
    assert np.load(io.BytesIO(output.read_bytes()))["arr_0"].shape == images().shape


def test_export_of_a_damaged_set_leaves_no_file(store: MemoryStore, tmp_path: Path) -> None:
    """Half an output under the right name would be taken for a whole one."""
    flip_bit(store)
    with pytest.raises(ShardDamagedError):
        export_samples(store, JOB, "npz", tmp_path / "set.npz")
    assert list(tmp_path.iterdir()) == []


def test_export_of_half_a_set_says_so(store: MemoryStore, tmp_path: Path) -> None:
    """The reader learns how much is there."""
    store.delete(PATHS.manifest)
    lose_commit(store)
    with pytest.raises(BadInputError, match="2 of 3 shards"):
        export_samples(store, JOB, "npz", tmp_path / "set.npz")


def test_unknown_job_is_told(tmp_path: Path) -> None:
    """A typing error in the id is the most common mistake."""
    with pytest.raises(JobNotFoundError):
        verify_samples(MemoryStore(), "nobody")


@pytest.mark.parametrize("export_format", ["npz", "png"])
def test_export_replaces_no_folder_of_other_things(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export_format: ExportFormat
) -> None:
    """`--to . --overwrite` is typed easily, and what is in a folder may be anything."""
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years")
    monkeypatch.chdir(folder)
    for output in (Path(), Path("..") / "results", folder):
        with pytest.raises(BadInputError, match="no export of png"):
            export_samples(store, JOB, export_format, output, overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["results", "thesis.txt"]


def test_export_replaces_an_older_export(store: MemoryStore, tmp_path: Path) -> None:
    """With --overwrite, and without leaving anything beside it."""
    folder = tmp_path / "pngs"
    for overwrite in (False, True):
        export_samples(store, JOB, "png", folder, overwrite=overwrite)
    assert len(list(folder.iterdir())) == NUM_SAMPLES
    assert list(tmp_path.iterdir()) == [folder]


def test_export_that_cannot_be_written_is_told_in_a_line(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is no bug."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "open", fail)
    with pytest.raises(BadInputError, match="No space left"):
        export_samples(store, JOB, "npz", tmp_path / "set.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_was_overwritten_after_it_was_read_keeps_its_set_from_being_declared(
    store: MemoryStore,
) -> None:
    """The job succeeded with a set that `samples verify` called damaged."""
    plan = plan_shards(NUM_SAMPLES, SHARD_SIZE)
    reader = SetReader(SampleShards(store, PATHS), plan, origin_of(DECISIONS), num_first=6)
    for shard in plan:
        reader.read(shard.index)
    reader.check_unchanged()
    key = data_key(store, 1)
    store.put(key, store.get(key).body)  # even the same bytes: nobody has read them
    with pytest.raises(ShardDamagedError, match=f"{key} was overwritten"):
        reader.check_unchanged()
    store.delete(key)
    with pytest.raises(ShardDamagedError):
        reader.check_unchanged()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_grid_of_a_damaged_set_is_refused_as_bad_input(
    store: MemoryStore, fault: Callable[[MemoryStore], None]
) -> None:
    """Whoever asked is told which shard it is, with the exit code of a wrong request."""
    fault(store)
    with pytest.raises(BadInputError, match="the set of job"):
        SampleSet(store, JOB).first_images(NUM_SAMPLES)
