"""Sample sets as their users meet them: the verbs, an orchestrator, and what goes wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from orchestrator.artifacts.images import decode_png
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.cluster.ray_jobs import RayJobs
from orchestrator.errors import SpecConflictError
from orchestrator.stack.embedded import StackInfo
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_store
from tests.integration.commands import Answer, ddpmctl, wait_until
from tests.integration.fleets import MODEL_JOB, last_metric, put_model
from tests.integration.nodes import held_cpus

NAME, NUM_STEPS = "shown-set", 20


@pytest.fixture(scope="module")
def store(stack_info: StackInfo, tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    """The store of the session's stack, with a model in it."""
    store = open_store(stack_info.environment["DDPMCTL_STORE"])
    put_model(store, tmp_path_factory.mktemp("model"))
    return store


@pytest.fixture(scope="module")
def file(store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job file."""
    job = {
        "kind": "sample",
        "name": NAME,
        "model": {"checkpoint": f"{store.uri}/{JobPaths(MODEL_JOB).checkpoint(1)}"},
        "num_samples": 200,
        "shard_size": 16,
        "sampling": {
            "num_steps": NUM_STEPS,
            "microbatch_size": 16,
            "trajectory": 4,
            "precision": "float32",
            "compile": False,
        },
        "resources": {
            "num_workers": {"min": 1, "max": 3},
            "gpus_per_worker": 0,
            "cpus_per_worker": 1,
        },
    }
    path = tmp_path_factory.mktemp("jobs") / "set.yaml"
    path.write_text(json.dumps(job))
    return path


@pytest.fixture(scope="module")
def job_id(file: Path) -> str:
    """A job that has drawn its set."""
    answer = ddpmctl("submit", str(file), "--wait")
    assert answer.exit_code == 0, answer
    return str(answer.value["job_id"])


def commits(store: ObjectStore, job_id: str) -> dict[str, str]:
    """Return what is committed of a set."""
    return {info.key: info.etag for info in store.list_objects(JobPaths(job_id).samples)}


def states(job_id: str) -> list[str]:
    """Return the states that a job went through."""
    return [event["state"] for event in ddpmctl("events", job_id).value if event["state"]]


def complaint(answer: Answer) -> str:
    """Return the one line that a failed verb said."""
    assert answer.exit_code == answer.value["exit_code"] == 2, answer
    line = str(answer.value["error"])
    assert line.splitlines() == [line]
    assert "Traceback" not in answer.stderr
    return line


def test_a_damaged_set_is_found_and_repaired_and_is_the_same_again(
    store: ObjectStore, job_id: str
) -> None:
    """Only what is damaged is drawn again; SUCCEEDED is true once more afterwards."""
    proven = ddpmctl("samples", "verify", job_id)
    assert (proven.exit_code, proven.value["num_images"]) == (0, 200)
    paths, shards = JobPaths(job_id), SampleShards(store, JobPaths(job_id))
    damaged = shards.find(3)
    assert damaged is not None
    store.put(damaged.data_key, store.get(damaged.data_key).body[:-1] + b"x")
    store.delete(paths.shard(7))
    kept = commits(store, job_id)
    found = ddpmctl("samples", "verify", job_id)
    assert (found.exit_code, found.value["bad_shards"]) == (1, [3, 7])
    assert "SHA-256" in found.value["problems"][0]
    assert "missing" in found.value["problems"][1]
    repaired = ddpmctl("samples", "repair", job_id)
    assert (repaired.exit_code, repaired.value["set_sha256"]) == (0, proven.value["set_sha256"])
    assert ddpmctl("samples", "verify", job_id).exit_code == 0
    assert states(job_id)[-5:] == ["SUCCEEDED", "QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    assert last_metric(store, paths, 2, "reverse_steps") == 2 * NUM_STEPS
    withdrawn = {paths.shard(3), paths.shard(7), paths.manifest}
    unchanged = {key for key, etag in commits(store, job_id).items() if kept.get(key) == etag}
    assert {key for key in kept if key.endswith(".json")} - withdrawn <= unchanged


def test_status_grid_and_mlflow_show_the_set(
    store: ObjectStore, stack_info: StackInfo, job_id: str, tmp_path: Path
) -> None:
    """How it was drawn, what it cost, and what it looks like."""
    status = ddpmctl("status", job_id).value
    details: dict[str, Any] = status["details"]
    assert details["shards_done"] == details["num_shards"] == 13
    assert details["useful_cpu_s_per_1000_images"] > 0
    assert ddpmctl("samples", "grid", job_id, "--output", str(tmp_path / "g.png")).exit_code == 0
    drawn = store.get(f"{JobPaths(job_id).samples}grid.png").body
    assert decode_png((tmp_path / "g.png").read_bytes()).shape == decode_png(drawn).shape
    wait_until(lambda: not store.exists(f"tracking/{job_id}"))
    client = MlflowClient(stack_info.environment["MLFLOW_TRACKING_URI"])
    metrics = client.get_run(status["run_id"]).data.metrics
    assert metrics["images_done"] == 200
    assert metrics.keys() >= {
        *("reverse_steps", "images_per_s", "mean_images_per_s", "workers", "workers_lost"),
        *("useful_cpu_s_per_1000_images", "redone_cpu_s_per_1000_images"),
    }
    images = [file.path for file in client.list_artifacts(status["run_id"], "samples")]
    assert images == ["samples/grid.png"]


def test_bad_input_is_one_line_and_changes_nothing(
    store: ObjectStore, job_id: str, file: Path, tmp_path: Path
) -> None:
    """What exists is never overwritten, and what cannot be is said at once."""
    before = commits(store, job_id)
    other = ddpmctl("submit", str(file), "--id", job_id, "--set", "sampling.seed=1")
    assert complaint(other) == str(SpecConflictError(job_id, ("sampling.seed",)))
    for setting in ("num_samples=0", "shard_size=0", "shard_size=24", "sampling.num_steps=0"):
        key = setting.partition("=")[0]
        assert key in complaint(ddpmctl("submit", str(file), "--set", setting))
    output = tmp_path / "set.npz"
    output.write_bytes(b"yesterday's")
    assert "exists" in complaint(ddpmctl("samples", "export", job_id, "--output", str(output)))
    assert output.read_bytes() == b"yesterday's"
    assert commits(store, job_id) == before


def test_what_can_never_be_placed_or_drawn_says_why(
    store: ObjectStore, file: Path, tmp_path: Path
) -> None:
    """Waiting for ever, or trying again and again, would tell nobody anything."""
    wide = ddpmctl("submit", str(file), "--set", "resources.num_workers=99").value["job_id"]
    wait_until(lambda: ddpmctl("explain", wide).exit_code == 0)
    told = ddpmctl("explain", wide).value
    assert told["verdict"] == "never"
    assert "of its 99 workers" in told["reason"]
    assert ddpmctl("cancel", wide).exit_code == 0
    torn = put_model(store, tmp_path, step=2)
    store.put(f"{torn.folder}ema.safetensors", b"not what was committed")
    commit = f"model.checkpoint={store.uri}/{JobPaths(MODEL_JOB).checkpoint(2)}"
    ended = ddpmctl("submit", str(file), "--wait", "--set", commit)
    assert (ended.exit_code, ended.value["reason"], ended.value["attempt"]) == (100, "BAD_INPUT", 0)
    assert "ema.safetensors" in ended.value["message"]


def num_workers(job_id: str) -> int:
    """Return how many workers of a job draw."""
    return int(ddpmctl("status", job_id).value["details"].get("num_workers", 0))


def test_a_grown_fleet_makes_room_for_a_job_that_waits(
    stack_info: StackInfo, job_id: str, file: Path
) -> None:
    """It takes what others free, and gives it back to who has a right to it, losing no image."""
    endless = ("--set", "num_samples=1000000", "--set", "shard_size=160")
    with held_cpus(RayJobs(), 3):
        fleet = ddpmctl("submit", str(file), *endless).value["job_id"]
        wait_until(lambda: num_workers(fleet) == 1)
    wait_until(lambda: num_workers(fleet) == 3)
    placed = ddpmctl("submit", str(file), "--set", "resources.num_workers=3", "--wait")
    assert placed.exit_code == 0, placed
    ids = (job_id, placed.value["job_id"])
    sets = {ddpmctl("samples", "verify", one).value["set_sha256"] for one in ids}
    assert len(sets) == 1
    assert ddpmctl("status", fleet).value["state"] == "RUNNING"
    assert "is lost" not in "".join(e["message"] for e in ddpmctl("events", fleet).value)
    assert ddpmctl("cancel", fleet).exit_code == 0
