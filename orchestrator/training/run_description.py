"""What a training's run in MLflow says before its first step: params, data set, tags."""

from pathlib import Path

from ddpm.compute import ComputeDecision
from orchestrator.artifacts.checkpoints.own_code import network_named
from orchestrator.artifacts.datasets.refs import DatasetRef
from orchestrator.attempts.attempt import Attempt
from orchestrator.cluster.code_version import code_version, git_commit
from orchestrator.jobs.descent import ancestors
from orchestrator.specs.train import TrainJob
from orchestrator.tracking import tags
from orchestrator.tracking.writer import MetricWriter


def describe_run(
    attempt: Attempt,
    spec: TrainJob,
    metrics: MetricWriter,
    dataset: DatasetRef,
    compute: ComputeDecision,
    world_size: int,
) -> None:
    """Log what a training is.

    Args:
        attempt: Of the training.
        spec: What was asked.
        metrics: Takes it.
        dataset: The images.
        compute: How this attempt computes.
        world_size: Its workers.
    """
    metrics.log_params(spec.model_dump(mode="json"))
    metrics.log_dataset(
        Path(spec.dataset.source).name or "dataset",
        digest=dataset.sha256,
        source=spec.dataset.source,
        profile=dataset.profile,
    )
    commit, network = git_commit(), network_named(spec.model)
    descent = [str(one) for one in ancestors(attempt.store, attempt.record.model)]
    metrics.log_tags(
        {
            **({tags.INIT: descent[0]} if descent else {}),
            **({tags.DESCENT: " < ".join(descent)} if descent else {}),
            **({"mlflow.source.git.commit": commit} if commit else {}),
            tags.ATTEMPT: str(attempt.number),
            tags.CODE_SHA256: code_version(),
            tags.NUM_WORKERS: str(world_size),
            tags.DEVICE: compute.device_kind,
            tags.PRECISION: compute.precision,
            tags.COMPILED: str(compute.compiled),
            tags.KERNELS: compute.kernels,
            **({tags.NETWORK: network} if network else {}),
        }
    )
