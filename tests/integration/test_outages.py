"""What a user sees, and what is lost, when a part of the stack dies under a running job."""

import os
import signal
from pathlib import Path

from mlflow.tracking import MlflowClient

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.jobs.records import RecordStore
from orchestrator.stack.embedded import Stack, StackInfo
from orchestrator.store.keys import JobPaths
from orchestrator.store.s3_store import open_store
from tests.integration.commands import ddpmctl, submit, train_text, wait_until
from tests.integration.nodes import kill_tree


def kill_part(stack: Stack, name: str) -> None:
    """End a part of the stack, with all its processes, as a crash does."""
    (pid,) = (part.pid for part in stack.status() if part.name == name and part.pid)
    kill_tree(pid)


def committed(stack_info: StackInfo, job_id: str) -> int:
    """Return the newest checkpoint's step."""
    store = open_store(stack_info.environment["DDPMCTL_STORE"])
    return max(CheckpointStore(store, JobPaths(job_id)).steps(), default=0)


def test_metrics_outlive_mlflow_and_a_killed_worker_each_once(
    stack: Stack, stack_info: StackInfo, tmp_path: Path
) -> None:
    """MLflow is down while a worker is killed: metrics come late, none is lost or doubled."""
    store = open_store(stack_info.environment["DDPMCTL_STORE"])
    job_id = submit(tmp_path, train_text("metrics", steps=150, every=30))
    wait_until(lambda: committed(stack_info, job_id) >= 30)
    kill_part(stack, "mlflow")
    folder = JobPaths(job_id).attempt(1).processes
    keys = [info.key for info in store.list_objects(folder) if "worker" in info.key]
    os.kill(int(keys[0].rpartition("-")[2].removesuffix(".json")), signal.SIGKILL)
    assert ddpmctl("wait", job_id).exit_code == 0
    stack.up()
    wait_until(lambda: not store.exists(f"tracking/{job_id}"))
    client = MlflowClient(stack_info.environment["MLFLOW_TRACKING_URI"])
    run_id = ddpmctl("status", job_id).value["run_id"]
    steps = [metric.step for metric in client.get_metric_history(run_id, "loss")]
    assert steps == list(range(5, 151, 5))
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_job_outlives_all_of_ray(stack: Stack, stack_info: StackInfo, tmp_path: Path) -> None:
    """Its state turns unconfirmed, since nobody can write it; `up` and `wait` bring it on."""
    job_id = submit(tmp_path, train_text("cluster", steps=600, every=20))
    wait_until(lambda: ddpmctl("status", job_id).value["state"] == "RUNNING")
    kill_part(stack, "ray")
    wait_until(lambda: bool(ddpmctl("status", job_id).value["stale"]))
    (listed,) = (job for job in ddpmctl("list").value if job["job_id"] == job_id)
    assert (listed["state"], listed["stale"]) == ("RUNNING", True)
    stack.up()
    assert ddpmctl("wait", job_id).exit_code == 0
    record = RecordStore(open_store(stack_info.environment["DDPMCTL_STORE"])).read(job_id).record
    assert [attempt.reason for attempt in record.attempts] == ["CLUSTER_LOST", None]
