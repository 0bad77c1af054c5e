"""The fleet on a real cluster and a real store: the same images whatever happens to it."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset

from orchestrator.artifacts.images import decode_png
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.artifacts.samples.verify import verify_samples
from orchestrator.attempts.running import STOP_POLL_EVERY_S
from orchestrator.jobs.records import RecordStore
from orchestrator.stack.embedded import StackInfo
from orchestrator.store.keys import JobPaths
from tests.integration.fleets import (
    NUM_SAMPLES,
    NUM_STEPS,
    Fleets,
    fleets_in,
    hanging,
    kill_author,
    last_metric,
    next_author,
    process_of,
    spec_of,
)


@pytest.fixture(scope="module")
def fleets(stack_info: StackInfo, tmp_path_factory: pytest.TempPathFactory) -> Fleets:
    """Fleets of this module alone."""
    return fleets_in("fleet-tests", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def reference(fleets: Fleets) -> str:
    """The hash of the set that one worker draws in peace."""
    paths = fleets.start("calm", spec_of("calm", trajectory=4), 1)
    outcome = fleets.outcome(paths)
    assert outcome.succeeded, outcome
    return fleets.set_sha256(paths)


def test_set_is_whole_and_shown(fleets: Fleets, reference: str) -> None:
    """The plain path: every image in order, proven, with a grid and a film for people."""
    paths = JobPaths("calm")
    report = verify_samples(fleets.store, "calm")
    assert report.is_whole, report.problems
    assert report.num_images == NUM_SAMPLES
    assert report.set_sha256 == reference
    for name in ("grid.png", "reverse-chain.png"):
        assert decode_png(fleets.store.get(f"{paths.samples}{name}").body).size > 0


def test_set_depends_on_neither_workers_nor_shards(fleets: Fleets, reference: str) -> None:
    """Image k is a function of the model, the seed and k: who draws it, and with whom, is not.

    Shards of 64 images are drawn by the cancelled job below.
    """
    paths = fleets.start("three-16", spec_of("three-16", workers=3), 3)
    assert fleets.outcome(paths).succeeded
    assert fleets.set_sha256(paths) == reference


def test_two_workers_killed_in_mid_chain_change_nothing(fleets: Fleets, reference: str) -> None:
    """Spot machines vanish without a word; the others and the replacements draw the rest."""
    paths = fleets.start("killed", spec_of("killed", workers=3), 3)
    first = kill_author(fleets, paths, ())
    second = kill_author(fleets, paths, (first,))
    outcome = fleets.outcome(paths)
    assert outcome.succeeded, outcome
    assert fleets.set_sha256(paths) == reference
    lost = [event.message for event in RecordStore(fleets.store).events("killed")]
    assert {line.split()[0] for line in lost if " is lost" in line} == {first, second}


def test_cancelled_and_retried_job_goes_on_where_it_was(fleets: Fleets, reference: str) -> None:
    """What was drawn when the word to stop came is kept, and no reverse step is done twice."""
    paths = fleets.start("cancelled", spec_of("cancelled", shard_size=64, workers=2), 2)
    author = next_author(fleets, paths, ())  # it draws its next shard by now
    with hanging(process_of(fleets, paths, author)):
        fleets.tell_to_stop(paths)
        time.sleep(3 * STOP_POLL_EVERY_S)  # so the word to stop is there before the shard's end
    outcome = fleets.outcome(paths)
    assert outcome.stopped
    assert outcome.progress < NUM_SAMPLES
    partials = list(fleets.store.list_objects(paths.attempt(1).partial))
    assert 1 <= len(partials) <= 2
    fleets.start("cancelled", spec_of("cancelled", shard_size=64, workers=2), 1)
    assert fleets.outcome(paths).succeeded
    assert fleets.set_sha256(paths) == reference
    assert list(fleets.store.list_objects(paths.attempt(1).partial)) == []
    steps = [last_metric(fleets.store, paths, number, "reverse_steps") for number in (1, 2)]
    num_microbatches = 4 + 4 + 4 + 1  # of shards with 64, 64, 64 and 8 images
    assert sum(steps) == num_microbatches * NUM_STEPS
    assert min(steps) > 0


def test_late_duplicate_changes_nothing(fleets: Fleets, reference: str) -> None:
    """A worker of an old attempt that wakes up after everything is done finds its place taken."""
    store, paths = fleets.store, JobPaths("calm")
    shards = SampleShards(store, paths)
    standing = shards.find(0)
    assert standing is not None

    def images() -> list[tuple[str, str]]:
        folders = (paths.samples, f"{paths.attempt(1).folder}data/")
        return [(info.key, info.etag) for name in folders for info in store.list_objects(name)]

    before = images()
    late = replace(standing, data_key=f"{paths.attempt(1).data('late')}shard-000000.tar")
    store.put(late.data_key, store.get(standing.data_key).body)
    assert shards.commit(late) == standing
    assert images() == before
    assert verify_samples(store, "calm").set_sha256 == reference


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_webdataset_reads_a_shard(fleets: Fleets, reference: str, tmp_path: Path) -> None:
    """The format is the one that others' data loaders know."""
    shards = SampleShards(fleets.store, JobPaths("calm"))
    commit = shards.find(1)
    assert commit is not None
    fleets.store.get_file(commit.data_key, tmp_path / "shard.tar")
    dataset = webdataset.WebDataset(str(tmp_path / "shard.tar"), shardshuffle=False)
    samples = list(dataset)
    assert [sample["__key__"] for sample in samples] == [f"{k:09d}" for k in range(16, 32)]
    pixels = np.stack([decode_png(sample["png"]) for sample in samples])
    assert np.array_equal(pixels, shards.read(commit))
