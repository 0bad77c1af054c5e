"""A fleet takes what room there is, loses nodes, its driver and its patience, and no image."""

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from ddpm.compute import ComputeDecision
from ddpm.process.sampling import draw, to_uint8
from ddpm.training.checkpoint import load_model
from orchestrator.artifacts.checkpoints.resolve import fetch_model, resolve_model
from orchestrator.artifacts.samples.manifest import SetHash
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.artifacts.samples.verify import verify_samples
from orchestrator.jobs.heartbeat import HEARTBEAT, Heartbeat
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.units import plan_shards
from orchestrator.sampling.network import build_denoiser, build_diffusion
from orchestrator.specs.sample import SampleJob
from orchestrator.stack.embedded import StackInfo
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from tests.integration.fleets import (
    WAIT_S,
    Fleets,
    fleets_in,
    hanging,
    next_author,
    process_of,
    registered,
    spec_of,
    wait_until,
)
from tests.integration.nodes import extra_node, held_cpus

JOB = "bent"
SPEC = spec_of(JOB, num_samples=512, workers=3, num_steps=50)
PLAN = plan_shards(SPEC.num_samples, SPEC.shard_size)


@pytest.fixture(scope="module")
def fleets(stack_info: StackInfo, tmp_path_factory: pytest.TempPathFactory) -> Fleets:
    """Fleets of this module alone."""
    return fleets_in("bending-fleet", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def expected(fleets: Fleets) -> str:
    """The hash of the set that a plain loop draws in this process."""
    return bare_set_sha256(fleets.store, SPEC)


def bare_set_sha256(store: ObjectStore, spec: SampleJob) -> str:
    """Draw a set with the library alone, in order; return its hash."""
    model = resolve_model(store, spec.model)
    network, info = load_model(fetch_model(store, model).folder)
    compute, set_hash = ComputeDecision(), SetHash()
    denoiser, diffusion = build_denoiser(network, compute), build_diffusion(info, compute.device)
    size = spec.sampling.microbatch_size
    for start in range(0, spec.num_samples, size):
        indices = torch.arange(start, start + size)
        images = to_uint8(draw(denoiser, diffusion, spec.sampling, indices, info.image_shape))
        set_hash.add(images[: spec.num_samples - start].numpy())
    return set_hash.hexdigest


def beat(fleets: Fleets, paths: JobPaths, number: int) -> Heartbeat:
    """Return the newest heartbeat of an attempt, or an empty one."""
    said = HEARTBEAT.value(fleets.store, paths.attempt(number).heartbeat)
    return said or Heartbeat(at=fleets.store.now())


def told(fleets: Fleets) -> str:
    """Return what the job's history says."""
    return "\n".join(event.message for event in RecordStore(fleets.store).events(JOB))


def commits(fleets: Fleets, paths: JobPaths) -> dict[str, str]:
    """Return keys and ETags of the shards' commits."""
    prefix = f"{paths.samples}shard-"
    return {info.key: info.etag for info in fleets.store.list_objects(prefix)}


def unnamed_data(fleets: Fleets, paths: JobPaths) -> set[str]:
    """Return the keys of data that no commit names."""
    shards = SampleShards(fleets.store, paths)
    found = [shards.find(index) for index in shards.indices()]
    named = {commit.data_key for commit in found if commit}
    below = fleets.store.list_objects(f"{paths.folder}attempts/")
    return {info.key for info in below if "/data/" in info.key} - named


def test_fleet_grows_with_the_cluster_and_outlives_a_node(
    fleets: Fleets, stack_info: StackInfo, tmp_path: Path
) -> None:
    """It starts with one worker, uses a node that joins, loses it, and uses what others free."""
    with ExitStack() as stopped:
        with held_cpus(fleets.jobs, 3):
            paths = fleets.start(JOB, SPEC, 1)
            first = next_author(fleets, paths, ())
            stopped.enter_context(hanging(process_of(fleets, paths, first)))
            wait_until(lambda: beat(fleets, paths, 1).workers, WAIT_S, "no heartbeat")
            home = [worker.node_id for worker in beat(fleets, paths, 1).workers]
            with extra_node(stack_info, tmp_path, num_cpus=1) as node:
                second = next_author(fleets, paths, (first,))
                node.kill()
            wait_until(lambda: f"{second} is lost" in told(fleets), WAIT_S, "loss not seen")
            assert len(home) == 1
            assert registered(fleets, paths, second)["node_id"] not in home
            assert "held nothing" not in told(fleets)
        third = next_author(fleets, paths, (first, second))
        stopped.enter_context(hanging(process_of(fleets, paths, third)))
        next_author(fleets, paths, (first, second, third))
        process_of(fleets, paths, "1-driver").kill()
    fleets.wait_for_end(paths)
    assert 0 < len(commits(fleets, paths)) < len(PLAN)
    assert not fleets.store.exists(paths.attempt(1).outcome)


def test_next_driver_draws_the_rest_past_a_worker_that_hangs(fleets: Fleets, expected: str) -> None:
    """What is committed is kept; what one hangs on is given to another, and its copy is void."""
    before = commits(fleets, JobPaths(JOB))
    paths = fleets.start(JOB, SPEC, 2)
    slow = next_author(fleets, paths, {f"1-worker-{rank}" for rank in range(10)})
    with hanging(process_of(fleets, paths, slow)):
        wait_until(lambda: len(commits(fleets, paths)) == len(PLAN), WAIT_S, "it waits")
    outcome = fleets.outcome(paths)
    assert outcome.succeeded, outcome
    assert fleets.set_sha256(paths) == expected
    assert verify_samples(fleets.store, JOB).is_whole
    assert before.items() <= commits(fleets, paths).items()
    assert beat(fleets, paths, 2).details["shards_given_twice"] >= 1
    lost = f"{paths.attempt(1).folder}data/shard-"
    assert all(key.startswith(lost) for key in unnamed_data(fleets, paths))
