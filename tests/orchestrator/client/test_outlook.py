"""`submit` and `list` say at once that a job waits for nodes, or that it never starts."""

from pathlib import Path

import pytest

from orchestrator.cli.listing import list_command
from orchestrator.client.outlook import outlook_of
from orchestrator.client.submit import submit_job
from orchestrator.jobs.queue import set_quota
from orchestrator.scheduling.nodes import NodeType
from orchestrator.specs.files import load_submission
from orchestrator.store import keys
from tests.support.verbs import Verbs
from tests.support.world import World, train_job

TYPE = NodeType(name="big", cpus=16, gpus=4, memory_gb=64, accelerator="H100", max_count=2)
SWEEP = """\
kind: sweep
name: s
matrix: {training.seed: [1, 2, 3]}
job:
  kind: train
  dataset: {source: digits}
  training: {num_steps: 10, global_batch_size: 60}
  resources: {num_workers: 60, cpus_per_worker: 1}
"""


@pytest.fixture
def world() -> World:
    """One node with 4 CPUs, and an autoscaler that may start two of 16."""
    world = World()
    world.cluster.types = [TYPE]
    world.step()
    return world


def test_what_fits_the_nodes_there_is_not_spoken_of(world: World) -> None:
    """Nobody wants to read that all is well."""
    assert outlook_of(world.store, train_job(workers=4, asks={"gpus_per_worker": 0})) == []
    assert outlook_of(World().store, train_job(workers=64)) == []  # nobody has looked yet


@pytest.mark.parametrize(
    ("workers", "asks", "said"),
    [
        (
            8,
            {"gpus_per_worker": 0, "cpus_per_worker": 1},
            "waits for nodes to start: there is room",
        ),
        (8, {}, "waits for nodes to start: there is room for 0 of its 8 workers"),
        (16, {}, "never: even with nothing else running the cluster has room for 8 of its 16"),
        (1, {"memory_gb": 100}, "never: "),
        (1, {"accelerator": "A100"}, "never: "),
        (1, {"accelerator": "H100"}, "waits for nodes to start: "),
        (64, {"gpus_per_worker": 0, "cpus_per_worker": 1}, "never: "),
    ],
)
def test_it_tells_waiting_for_nodes_from_never(
    world: World, workers: int, asks: dict[str, object], said: str
) -> None:
    """The first needs patience, the second another job file."""
    (line,) = outlook_of(world.store, train_job(workers=workers, asks=asks))
    assert line.startswith(said)


def test_a_quota_may_be_what_keeps_it_out(world: World) -> None:
    """No node that starts would help."""
    set_quota(world.store, "default", 2)
    (line,) = outlook_of(world.store, train_job(workers=4, asks={"gpus_per_worker": 1}))
    assert line == "never: it needs 4 GPUs and queue default may hold 2"


def test_a_groups_jobs_are_told_of_once(world: World, tmp_path: Path) -> None:
    """A hundred equal runs are one line."""
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP)
    (line,) = outlook_of(world.store, load_submission(file))
    assert line.startswith("never: ")


def test_list_tells_them_apart(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks in the morning sees which job will never have run."""
    listed = Verbs(monkeypatch, world.store)
    for name, workers in (("grows", 8), ("never", 16)):
        asks = {"gpus_per_worker": 1, "cpus_per_worker": 1}
        submit_job(world.store, train_job(name, workers, asks), name)
    world.step(2)
    jobs = {job["job_id"]: job for job in listed(list_command, ["-o", "json"]).value}
    assert jobs["grows"]["outlook"] == "waits for nodes to start"
    assert jobs["never"]["outlook"] == "never"
    assert "waits for nodes to start" in listed(list_command, ["-o", "wide"]).out
    world.cluster.node_ids = [f"n{n}" for n in range(4)]
    world.cluster.gpus, world.cluster.cpus = 4, 16
    world.step(2)
    jobs = {job["job_id"]: job for job in listed(list_command, ["-o", "json"]).value}
    assert jobs["never"]["outlook"] == ""  # nodes came that nobody had promised


def test_settings_that_nobody_can_read_are_told_and_fail_no_submit(world: World) -> None:
    """The job is in the queue by then."""
    world.store.put(keys.CONFIG, b"{")
    (line,) = outlook_of(world.store, train_job())
    assert line.startswith("whether it fits is unknown: orchestrator/config.json is no JSON")
