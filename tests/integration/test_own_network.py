"""A network of another package, as a user has it: trained, killed, drawn from, measured."""

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from orchestrator.artifacts.samples.verify import verify_samples
from orchestrator.stack.embedded import StackInfo
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_store
from tests.integration.commands import (
    ddpmctl,
    registered_processes,
    submit,
    wait_until,
)
from tests.integration.test_main_job import (
    checkpoint_hash,
    kill,
    predicted,
    wait_for_checkpoint,
)
from tests.support.own_networks import forget

TRAIN = """
kind: train
name: transformer
dataset: {{source: digits, holdout_fraction: 0.1}}
model: {{network: dit, num_classes: auto, width: 16, depth: 1, num_heads: 2, dropout: 0.1}}
diffusion: {{num_timesteps: 100}}
training: {{num_steps: {steps}, global_batch_size: 12, learning_rate: 1e-3, ema_decay: 0.9}}
checkpoints: {{every_steps: 300}}
tracking: {{log_every_steps: 20, sample_every_steps: 0}}
evaluation: {{num_images: 8, num_timesteps: 5}}
resources: {{num_workers: 1, gpus_per_worker: 0, cpus_per_worker: 1}}
retry: {{worker_lost: {{backoff_s: 0.5}}}}
"""
SAMPLE = """
kind: sample
name: transformer-samples
model: {job: transformer}
num_samples: 20
shard_size: 8
sampling: {method: ddim, num_steps: 5, microbatch_size: 8, labels: [3, 7], guidance_scale: 2.0}
resources: {num_workers: {min: 1, max: 2}, gpus_per_worker: 0, cpus_per_worker: 1}
"""
LIKELIHOOD = """
kind: likelihood
name: transformer-bits
model: {job: transformer}
dataset: {source: digits, holdout_fraction: 0.1}
num_timesteps: 5
num_images: 8
shard_size: 8
resources: {num_workers: {min: 1, max: 1}, gpus_per_worker: 0, cpus_per_worker: 1}
"""


@pytest.fixture(scope="module")
def store(stack_info: StackInfo) -> ObjectStore:
    """The store of the session's stack."""
    return open_store(stack_info.environment["DDPMCTL_STORE"])


def test_a_network_of_another_package_lives_as_ours_do(
    store: ObjectStore, stack_info: StackInfo, tmp_path: Path
) -> None:
    """Killed and gone on to the same bits, drawn by a fleet and proved, bounded, and registered."""
    forget("ddpmctl_dit")
    shaken = submit(tmp_path, TRAIN.format(steps=1800))
    calm = submit(tmp_path, TRAIN.format(steps=1800))
    wait_for_checkpoint(store, shaken, 300)
    kill(registered_processes(store, shaken, 1, "worker")[0])
    assert ddpmctl("wait", calm).exit_code == 0
    assert ddpmctl("wait", shaken).exit_code == 0
    assert ddpmctl("status", shaken).value["attempt"] == 2
    assert checkpoint_hash(store, shaken, 1800) == checkpoint_hash(store, calm, 1800)
    decided = json.loads(store.get(JobPaths(calm).decisions).body)
    assert decided["network"]["package"] == "ddpmctl-dit"
    assert "dit is another package's" in decided["compute"]["reason"]

    drawing, bounding = submit(tmp_path, SAMPLE), submit(tmp_path, LIKELIHOOD)
    assert ddpmctl("wait", drawing).exit_code == 0
    assert ddpmctl("wait", bounding).exit_code == 0
    assert verify_samples(store, drawing).is_whole
    wait_until(lambda: not store.exists(f"tracking/{shaken}"))
    client = MlflowClient(stack_info.environment["MLFLOW_TRACKING_URI"])
    run = client.get_run(ddpmctl("status", shaken).value["run_id"])
    assert run.data.params["model.network"] == "dit"
    assert run.data.tags["ddpmctl.network"].startswith("dit of ddpmctl-dit 1.0 (")
    assert predicted("models:/transformer/1", num_samples=2, num_steps=3).shape == (2, 8, 8, 1)
