"""Many processes prepare one source: what comes out is what one alone would have stored."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.artifacts.datasets import preparing, shared_listing
from orchestrator.artifacts.datasets.ingest import complete, ingest, open_any
from orchestrator.artifacts.datasets.manifest import read_manifest
from orchestrator.artifacts.datasets.preparing import Preparation
from orchestrator.artifacts.datasets.proof import verify_dataset
from orchestrator.artifacts.datasets.reading import Reading, decoder_versions
from orchestrator.artifacts.datasets.refs import DatasetRef, describe
from orchestrator.artifacts.datasets.shared_listing import share_listing
from orchestrator.artifacts.images import encode_png
from orchestrator.controller.committed import committed_units
from orchestrator.errors import BadInputError
from orchestrator.fleet.work import ShardTask, Watch
from orchestrator.preparation import worker as worker_module
from orchestrator.preparation.driver import UnitPlan
from orchestrator.preparation.worker import PrepareSetup, PrepareWorker
from orchestrator.specs.prepare import PrepareJob
from orchestrator.specs.sections import SourceSpec
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore

IMAGES = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 1), np.uint8)
READING = Reading(channels="rgb", skip_damaged=True)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make 30 images a chunk, 16 a unit, and 7 a page of a listing."""
    monkeypatch.setattr(preparing, "CHUNK_BYTES", 30 * 3 * 64)
    monkeypatch.setattr(shared_listing, "PAGE", 7)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of images, one of which is damaged."""
    folder = tmp_path / "set"
    folder.mkdir()
    for index, image in enumerate(IMAGES):
        (folder / f"{index:03d}.png").write_bytes(encode_png(image))
    (folder / "033.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def begun(source: Path, store: MemoryStore) -> Preparation:
    """Return a preparation as a driver begins it."""
    opened = open_any(str(source), store, source.parent)
    preparation = Preparation(opened, READING, store, num_units=256)
    share_listing(opened, store, preparation.paths)
    return preparation


def worker_of(preparation: Preparation, source: Path, **changes: object) -> PrepareWorker:
    """Return a worker that has nothing but the store and what the driver told it."""
    setup = PrepareSetup(
        store_uri="",
        source=str(source),
        reading=READING,
        plan=preparation.plan,
        preparation=preparation.paths.preparation,
        decoders=decoder_versions(),
        cpus=2,
    )
    changed = replace(setup, **changes)  # type: ignore[arg-type]
    return PrepareWorker(preparation.store, changed)


def do(worker: PrepareWorker, preparation: Preparation, unit: int, watch: Watch) -> str:
    """Have a worker prepare a unit; return what became of it."""
    task = ShardTask(UnitPlan(preparation.plan)[unit])
    return worker.keep(task, worker.compute(task, watch)).kind


def test_what_workers_prepare_is_what_one_process_would(source: Path, tmp_path: Path) -> None:
    """The name, the cut into chunks, what is damaged: nothing tells who prepared it."""
    alone, store = MemoryStore(), MemoryStore()
    expected = ingest(str(source), alone, tmp_path / "cache", reading=READING)
    preparation = begun(source, store)
    assert [preparation.plan.bounds(unit) for unit in range(preparation.plan.num_units)] == [
        *((0, 16), (16, 30)),
        *((30, 46), (46, 60)),
        *((60, 70),),
    ]
    workers = [worker_of(preparation, source) for _ in range(2)]
    for number, unit in enumerate((3, 1, 0, 4, 2)):
        assert do(workers[number % 2], preparation, unit, Watch()) == "committed"
    assert preparation.committed() == set(range(5))
    ref = complete(preparation)
    assert ref == expected
    ours, theirs = (read_manifest(where, ref.sha256) for where in (store, alone))
    assert [chunk.sha256 for chunk in ours.chunks] == [chunk.sha256 for chunk in theirs.chunks]
    assert replace(ours, chunks=()) == replace(theirs, chunks=())
    assert verify_dataset(store, describe(store, ref.sha256)).is_whole
    named = {chunk.key for chunk in ours.chunks}
    assert {key for key in store.objects if "/chunks/" in key} == named
    assert not [key for key in store.objects if "/preparing/" in key]


def test_a_folder_that_goes_away_meanwhile_makes_no_picture_a_damaged_one(source: Path) -> None:
    """A mount that one node loses would leave pictures out of the set, and nobody would know."""
    preparation = begun(source, MemoryStore())
    worker = worker_of(preparation, source)
    assert do(worker, preparation, 0, Watch()) == "committed"
    source.rename(source.with_name("elsewhere"))
    with pytest.raises(BadInputError, match="all nodes must see it"):
        do(worker, preparation, 1, Watch())
    assert preparation.committed() == {0}
    source.with_name("elsewhere").rename(source)
    assert do(worker, preparation, 1, Watch()) == "committed"


def test_what_is_committed_counts_as_progress_of_the_job(source: Path) -> None:
    """An attempt whose driver died said nothing, and yet must renew the budget of retries."""
    store, job = MemoryStore(), JobPaths("photos")
    spec = PrepareJob(kind="prepare", name="photos", dataset=SourceSpec(source=str(source)))
    assert committed_units(store, job, spec) == 0
    preparation = begun(source, store)
    told = {"preparation": preparation.paths.preparation}
    store.put(job.preparation, json.dumps(told).encode())
    assert committed_units(store, job, spec) == 0
    preparation.write_unit(0)
    preparation.write_unit(2)
    assert committed_units(store, job, spec) == 32


def test_preparing_again_finds_what_the_cluster_prepared(source: Path, tmp_path: Path) -> None:
    """Twice prepared is once stored, and the second time nothing is read."""
    store = MemoryStore()
    preparation = begun(source, store)
    ref = complete(preparation)

    def never(*_: object) -> DatasetRef:
        raise AssertionError("it was prepared again")

    again = ingest(str(source), store, tmp_path / "cache", reading=READING, prepare=never)
    assert again == replace(ref, source=str(source))


def test_what_a_local_submit_left_by_half_is_gone_on_with(source: Path) -> None:
    """A laptop that began with whole chunks has fixed how the source is cut."""
    store = MemoryStore()
    opened = open_any(str(source), store, source.parent)
    Preparation(opened, READING, store).write_unit(1)
    preparation = begun(source, store)
    assert preparation.plan.images_per_unit == 30
    assert preparation.committed() == {1}


def test_a_worker_that_is_told_to_stop_gives_its_unit_back(source: Path) -> None:
    """Nothing of a unit by half is committed."""
    preparation = begun(source, MemoryStore())
    worker = worker_of(preparation, source)
    watch = Watch()
    watch.stop()
    assert do(worker, preparation, 0, watch) == "halved"
    dropped = Watch()
    dropped.drop(1)
    assert do(worker, preparation, 1, dropped) == "halved"
    assert preparation.committed() == set()


def _without_the_folder(source: Path) -> dict[str, object]:
    source.rename(source.with_name("elsewhere"))
    return {}


def _with_other_decoders(source: Path) -> dict[str, object]:
    del source
    return {"decoders": {**decoder_versions(), "pillow": "1.0"}}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_without_the_folder, r"cannot be read: No such file.*; all nodes must see it"),
        (_with_other_decoders, r"other versions .*pillow .* here and 1\.0 there"),
    ],
)
def test_a_node_that_would_read_something_else_is_refused(
    source: Path, change: Callable[[Path], dict[str, object]], told: str
) -> None:
    """With `skip_damaged` such a node would leave out every image that it was given."""
    preparation = begun(source, MemoryStore())
    with pytest.raises(BadInputError, match=told):
        worker_of(preparation, source, **change(source))


def test_a_source_that_cannot_be_listed_is_opened_by_each_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays and tables say in their head where each image lies."""
    monkeypatch.setattr(worker_module, "cache_folder", lambda _: tmp_path / "cache")
    file, store = tmp_path / "images.npy", MemoryStore()
    np.save(file, IMAGES)
    preparation = begun(file, store)
    worker = worker_of(preparation, file)
    for unit in range(preparation.plan.num_units):
        assert do(worker, preparation, unit, Watch()) == "committed"
    alone = ingest(str(file), MemoryStore(), tmp_path / "cache", reading=READING)
    assert complete(preparation) == alone
    np.save(file, IMAGES[:-1])
    with pytest.raises(BadInputError, match="was changed while it was read"):
        worker_of(preparation, file)
