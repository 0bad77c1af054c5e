"""The driver of one attempt of a training job: Ray Train's worker group, or one worker alone.

Retries, checkpoints and their verification are ours; to several workers Ray Train gives the group,
the process group and the dashboard's page.
"""

import logging
import os
import sys
import tempfile
from typing import Any

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.attempts.attempt import Attempt, register_driver
from orchestrator.attempts.entry import run_driver
from orchestrator.attempts.local_log import salvage
from orchestrator.cluster.actor_places import here
from orchestrator.cluster.node_interface import use_node_interface
from orchestrator.cluster.ray_cluster import GB
from orchestrator.cluster.ray_private import start_autoscaling_coordinator
from orchestrator.counts import counted
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.lifecycle.state import Placement
from orchestrator.specs.train import TrainJob
from orchestrator.training.board import AttemptBoard, BoardReader
from orchestrator.training.entry import train_in_group
from orchestrator.training.lone_worker import train_alone

# Each of Ray Train's helpers is a process that imports all of Ray Train before the first step.
# What a lost or drained node means for a job, the orchestrator decides; a placement group ends with
# its Ray Job; and the images do not come from Ray Data.
_TRAIN_SETTINGS = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
_UNUSED_HELPERS = frozenset({"PlacementGroupCleanerCallback", "DatasetsCallback"})

logger = logging.getLogger(__name__)


def train(attempt: Attempt) -> Outcome:
    """Run one attempt of a training job on the Ray cluster that this process belongs to."""
    import ray

    spec, placement = attempt.spec, attempt.record.placement
    if not isinstance(spec, TrainJob) or placement is None:
        raise TypeError(f"job {attempt.record.job_id} is no placed training job")
    ray.init(logging_level=logging.WARNING)
    register_driver(attempt)
    try:
        if placement.num_workers == 1:
            train_alone(attempt, placement)
        else:
            _train_in_group(attempt, placement)
    finally:
        salvage(attempt.store)  # the last lines of a rank that was killed on this machine
    return _outcome(attempt, spec)


def _train_in_group(attempt: Attempt, placement: Placement) -> None:
    import ray

    os.environ.update(_TRAIN_SETTINGS)
    board = (
        ray.remote(AttemptBoard)
        .options(num_cpus=0, max_concurrency=4, **here())
        .remote(placement.num_workers)
    )
    with BoardReader(attempt, board), _scratch() as folder:
        # Else the cluster's first training starts it later, and waits for it up to five seconds.
        start_autoscaling_coordinator()
        trainer(attempt, placement, {"address": attempt.address, "board": board}, folder).fit()


def _scratch() -> "tempfile.TemporaryDirectory[str]":
    """Return a folder for what Ray Train writes; one of its processes may do so to the end."""
    return tempfile.TemporaryDirectory(prefix="ddpmctl-train-", ignore_cleanup_errors=True)


def _torch_config(backend: str) -> Any:
    """Return how Ray Train forms the process group: at the interface of Ray's node address."""
    from ray.train.torch import TorchConfig

    class NodeBackend(TorchConfig(backend=backend).backend_cls):  # type: ignore[misc]
        """Chooses the interface on each worker before the group is formed."""

        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            worker_group.execute(use_node_interface)
            super().on_start(worker_group, backend_config)

    class NodeConfig(TorchConfig):  # type: ignore[misc]
        """A `TorchConfig` with that backend."""

        @property
        def backend_cls(self) -> type[NodeBackend]:
            return NodeBackend

    return NodeConfig(backend=backend)


def trainer(attempt: Attempt, placement: Placement, config: dict[str, Any], folder: str) -> Any:
    """Return Ray Train's trainer of an attempt: it never retries and uploads nothing.

    Args:
        attempt: Whose group it forms.
        placement: Where the workers go.
        config: What `train_in_group` gets.
        folder: Takes what Ray Train writes of its own, which nobody reads.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    class LeanTrainer(TorchTrainer):  # type: ignore[misc]
        """Starts no helper that a job here has no use for; where Ray has no such hook, all."""

        def _create_default_callbacks(self) -> list[Any]:
            made = super()._create_default_callbacks()
            return [one for one in made if type(one).__name__ not in _UNUSED_HELPERS]

    per_worker: dict[str, float] = {"CPU": placement.cpus_per_worker}
    if placement.gpus_per_worker:
        per_worker["GPU"] = placement.gpus_per_worker
    if placement.memory_gb_per_worker:
        per_worker["memory"] = placement.memory_gb_per_worker * GB
    nodes = [node for node, count in placement.workers_by_node.items() for _ in range(count)]
    return LeanTrainer(
        train_in_group,
        train_loop_config=config,
        torch_config=_torch_config("nccl" if placement.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=placement.num_workers,
            use_gpu=placement.gpus_per_worker > 0,
            resources_per_worker=per_worker,
            label_selector=[{"ray.io/node-id": node} for node in nodes],
        ),
        run_config=RunConfig(
            name=f"{attempt.record.job_id}-{attempt.number}",
            storage_path=folder,
            failure_config=FailureConfig(
                max_failures=0, max_preemption_failures=0, controller_failure_limit=0
            ),
        ),
    )


def _outcome(attempt: Attempt, spec: TrainJob) -> Outcome:
    """Say what the attempt came to from what is committed, not from what was done."""
    if attempt.origin.is_smoke:
        return Outcome(succeeded=True, message="smoke test passed")
    steps = CheckpointStore(attempt.store, attempt.job_paths).steps()
    committed = max(steps, default=0)
    if committed >= spec.training.num_steps:
        return Outcome(
            succeeded=True, progress=committed, message=f"trained {counted(committed, 'step')}"
        )
    return Outcome(
        stopped=True, progress=committed, message=f"stopped after step {committed}, which is saved"
    )


if __name__ == "__main__":  # the entry point of the Ray Job
    sys.exit(run_driver(train))
