"""A training's checkpoints are evaluated on the real stack while it goes on."""

from collections import Counter
from pathlib import Path

from mlflow import MlflowClient

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.stack.embedded import StackInfo
from orchestrator.store.keys import JobPaths
from orchestrator.store.s3_store import open_store
from tests.integration.commands import ddpmctl, wait_until

TRAIN = """
kind: train
name: watched
dataset: {source: digits}
model: {channels: 16, channel_multipliers: [1, 2], num_res_blocks: 1, attention_resolutions: [4]}
diffusion: {num_timesteps: 100}
training: {num_steps: 40, global_batch_size: 12, learning_rate: 1e-3, ema_decay: 0.9,
           precision: float32, compile: false}
checkpoints: {every_steps: 10, keep: 1, keep_best: kid}
tracking: {sample_every_steps: 0}
evaluation: {num_images: 0, metrics: {every_steps: 20, num_samples: 64, steps: 5}}
resources: {gpus_per_worker: 0, cpus_per_worker: 1}
"""


def test_checkpoints_are_compared_and_the_best_is_kept_and_registered(
    stack_info: StackInfo, tmp_path: Path
) -> None:
    """The curve stands on the training's run, each value once; its best has an alias."""
    store = open_store(stack_info.environment["DDPMCTL_STORE"])
    file = tmp_path / "watched.yaml"
    file.write_text(TRAIN)
    plan = ddpmctl("submit", str(file), "--dry-run").value["compared_on_the_way"]
    assert (plan["checkpoints"], plan["images"], plan["network_passes"]) == (2, 128, 10)
    assert ddpmctl("submit", str(file), "--id", "watched").exit_code == 0
    assert ddpmctl("wait", "watched").exit_code == 0
    for step in (20, 40):
        assert ddpmctl("wait", f"watched-at-{step}").exit_code == 0
    points = {child["step"]: child for child in ddpmctl("status", "watched").value["children"]}
    kids = {int(step[3:]): one["scores"]["kid-pixels"] for step, one in points.items()}
    assert kids.keys() == {20, 40}
    best = min(kids, key=lambda step: (kids[step], -step))
    wait_until(lambda: not list(store.list_objects("tracking/watched")))
    client = MlflowClient(stack_info.environment["MLFLOW_TRACKING_URI"])
    run_id = ddpmctl("status", "watched").value["run_id"]
    history = client.get_metric_history(run_id, "checkpoints/kid-pixels")
    assert {value.step: value.value for value in history} == kids
    assert set(Counter(value.step for value in history).values()) == {1}
    version = client.get_model_version_by_alias("watched", "best")
    assert version.tags["ddpmctl.step"] == str(best)
    wait_until(lambda: not list(store.list_objects("queue/watched")))
    assert CheckpointStore(store, JobPaths("watched")).steps() == sorted({best, 40})
