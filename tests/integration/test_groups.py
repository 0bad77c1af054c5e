"""A pipeline, as a user runs it, against a real Ray, a real store and a real MLflow."""

import os
import signal
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from orchestrator.artifacts.samples.verify import verify_samples
from orchestrator.stack.embedded import StackInfo
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_store
from tests.integration.commands import ddpmctl, registered_processes, submit, wait_until

PIPELINE = """
kind: pipeline
name: line
steps:
  train:
    kind: train
    dataset: {source: digits}
    model: {channels: 16, channel_multipliers: [1, 2], num_res_blocks: 1,
            attention_resolutions: [4]}
    diffusion: {num_timesteps: 50}
    training: {num_steps: 10, global_batch_size: 12, precision: float32, compile: false}
    tracking: {log_every_steps: 5, sample_every_steps: 0}
    evaluation: {num_images: 0}
    resources: {gpus_per_worker: 0, cpus_per_worker: 1}
  sample:
    kind: sample
    model: {step: train}
    num_samples: 16
    shard_size: 8
    sampling: {method: ddim, num_steps: 5, microbatch_size: 8, precision: float32, compile: false}
    resources: {gpus_per_worker: 0, cpus_per_worker: 1}
    retry: {driver_lost: {max_retries: 0}}
"""


@pytest.fixture(scope="module")
def store(stack_info: StackInfo) -> ObjectStore:
    """The store of the session's stack."""
    return open_store(stack_info.environment["DDPMCTL_STORE"])


def test_a_pipeline_is_retried_from_the_step_that_failed(
    store: ObjectStore, stack_info: StackInfo, tmp_path: Path
) -> None:
    """One wait, one retry, one tree of runs in MLflow; what was done is not done again."""
    group = submit(tmp_path, PIPELINE)
    train, sample = (child["job_id"] for child in ddpmctl("status", group).value["children"])
    wait_until(lambda: bool(registered_processes(store, sample, 1, "driver")))
    os.kill(registered_processes(store, sample, 1, "driver")[0], signal.SIGKILL)
    failed = ddpmctl("wait", group)
    assert (failed.exit_code, failed.value["reason"]) == (100, "DRIVER_LOST")
    assert [c["state"] for c in failed.value["children"]] == ["SUCCEEDED", "FAILED"]
    assert ddpmctl("retry", group).exit_code == 0
    done = ddpmctl("wait", group)
    assert (done.exit_code, done.value["message"]) == (0, "2 of 2 steps done")
    assert [c["attempt"] for c in done.value["children"]] == [1, 2]
    assert verify_samples(store, sample).is_whole
    wait_until(lambda: not any(store.exists(f"tracking/{job}") for job in (group, train, sample)))
    client = MlflowClient(stack_info.environment["MLFLOW_TRACKING_URI"])
    parent = client.get_run(done.value["run_id"])
    assert parent.info.status == "FINISHED"
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    assert {run.info.run_name for run in children} == {train, sample}
