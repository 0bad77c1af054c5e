"""A bucket of photos becomes a data set on the cluster, whoever is killed on the way."""

import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.artifacts.datasets.ingest import ingest
from orchestrator.artifacts.datasets.proof import verify_dataset
from orchestrator.artifacts.datasets.reading import Reading
from orchestrator.artifacts.datasets.refs import describe
from orchestrator.stack.embedded import StackInfo
from orchestrator.store.json_objects import read_json
from orchestrator.store.keys import JobPaths, PreparationPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_bucket, open_store
from tests.integration.commands import ddpmctl, registered_processes, submit, wait_until
from tests.support.fakes import MemoryStore

NUM_IMAGES, EDGE = 160, 1200
PREPARE = """
kind: prepare
name: photos
dataset: {{source: "{source}", image_size: {size}, channels: rgb, skip_damaged: true}}
resources: {{num_workers: 2, cpus_per_worker: 1}}
retry: {{driver_lost: {{backoff_s: 0.5}}}}
"""


@pytest.fixture(scope="module")
def store(stack_info: StackInfo) -> ObjectStore:
    """The store of the session's stack."""
    return open_store(stack_info.environment["DDPMCTL_STORE"])


@pytest.fixture(scope="module")
def photos(store: ObjectStore) -> str:
    """The URI of a prefix with large photos, of which one is damaged."""
    source = f"s3://{store.uri.removeprefix('s3://').partition('/')[0]}/photos of mine"
    bucket, noise = open_bucket(source), np.random.default_rng(0)
    bodies = [_photo(noise, width=EDGE + 40 * number) for number in range(8)]
    for number in range(NUM_IMAGES):
        bucket.put(f"{number % 3}/{number:03d}.jpg", bodies[number % len(bodies)])
    bucket.put("0/damaged.jpg", bodies[0][:200])
    return source


def _photo(noise: np.random.Generator, width: int) -> bytes:
    pixels = noise.integers(0, 256, (EDGE // 8, width // 8, 3), np.uint8)
    packed = io.BytesIO()
    Image.fromarray(pixels).resize((width, EDGE)).save(packed, "JPEG")
    return packed.getvalue()


def units(store: ObjectStore, job_id: str) -> dict[str, str]:
    """Return the commits of a job's preparation with their ETags."""
    found = read_json(store, JobPaths(job_id).preparation)
    if found is None:
        return {}
    folder = PreparationPaths(found[0]["preparation"]).units
    return {info.key: info.etag for info in store.list_objects(folder)}


@pytest.mark.parametrize(("role", "size"), [("worker", 32), ("driver", 24)])
def test_a_preparation_survives_a_kill_and_is_what_one_machine_prepares(
    role: str, size: int, store: ObjectStore, photos: str, tmp_path: Path
) -> None:
    """Exactly N images, to the bit, and only what was not committed is read again."""
    job_id = submit(tmp_path, PREPARE.format(source=photos, size=size))
    wait_until(lambda: len(units(store, job_id)) >= 2)
    before = units(store, job_id)
    os.kill(registered_processes(store, job_id, 1, role)[0], signal.SIGKILL)
    if role == "driver":
        wait_until(lambda: ddpmctl("status", job_id).value["attempt"] == 2)
        assert units(store, job_id).items() >= before.items()
    assert ddpmctl("wait", job_id).exit_code == 0, ddpmctl("status", job_id).value
    status = ddpmctl("status", job_id).value
    assert (status["done"], status["total"], status["unit"]) == (NUM_IMAGES, NUM_IMAGES, "images")
    told = f"{NUM_IMAGES} images taken; damaged, passed over: 1; 3 classes: 0 54, 1 53, 2 53"
    assert told in status["message"]
    named = read_json(store, JobPaths(job_id).dataset)
    assert named is not None
    reading = Reading(image_size=(size, size), channels="rgb", skip_damaged=True)
    alone = ingest(photos, MemoryStore(), tmp_path / "cache", reading=reading, labels="auto")
    assert named[0]["sha256"] == alone.images
    assert named[0]["labelled_sha256"] == alone.sha256
    assert verify_dataset(store, describe(store, alone.sha256)).is_whole


def test_a_second_preparation_of_the_same_finds_the_first(
    store: ObjectStore, photos: str, tmp_path: Path
) -> None:
    """Twice prepared is once stored: no worker is started for it."""
    job_id = submit(tmp_path, PREPARE.format(source=photos, size=32))
    assert ddpmctl("wait", job_id).exit_code == 0
    assert registered_processes(store, job_id, 1, "worker") == []
