"""The two jobs that evaluate a checkpoint of a training while that goes on: draw, then compare.

Their ids follow from the training and the step, so whoever makes them again makes the same.
"""

from dataclasses import dataclass

from ddpm.config import SamplingConfig
from orchestrator.lifecycle.curves import evaluated_steps
from orchestrator.specs.asked import Submitted
from orchestrator.specs.envelope import Origin
from orchestrator.specs.evaluate import EvaluateJob, SetRef
from orchestrator.specs.group import GroupJob
from orchestrator.specs.job import Job
from orchestrator.specs.measuring import MetricsSpec
from orchestrator.specs.resources import SampleResources
from orchestrator.specs.resources import WorkerRange as Workers
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef, RunSpec, SampleTrackingSpec
from orchestrator.specs.train import TrainJob
from orchestrator.store.keys import JobPaths
from orchestrator.store.names import MAX_NAME_LENGTH, part_id, shortened

PRIORITY = 0
MAX_WORKERS = 4
_MICROBATCH = 64


@dataclass(frozen=True)
class CheckpointEvaluation:
    """The jobs that evaluate the checkpoint of a step.

    Attributes:
        step: Training steps.
        sample_id: The job that draws.
        evaluate_id: The job that compares.
    """

    step: int
    sample_id: str
    evaluate_id: str


def evaluation_at(training_id: str, name: str, step: int) -> CheckpointEvaluation:
    """Return the ids of the jobs that evaluate a checkpoint.

    Args:
        training_id: The training's id.
        name: And its name.
        step: Of the checkpoint.
    """
    sample_id = part_id(training_id, name, f"at-{step}-samples")
    return CheckpointEvaluation(step, sample_id, part_id(training_id, name, f"at-{step}"))


def metrics_of(spec: Job | GroupJob) -> tuple[TrainJob, MetricsSpec] | None:
    """Return a training with what is asked of evaluations on the way; None of any other job."""
    if not isinstance(spec, TrainJob) or spec.evaluation.metrics is None:
        return None
    return spec, spec.evaluation.metrics


def evaluation_ids(job_id: str, spec: Job | GroupJob) -> list[str]:
    """Return the ids of all jobs by which a job's checkpoints may be evaluated."""
    if (asked := metrics_of(spec)) is None:
        return []
    training, metrics = asked
    steps = evaluated_steps(metrics.every_steps, training.training.num_steps)
    found = (evaluation_at(job_id, training.name, step) for step in steps)
    return [one for at in found for one in (at.sample_id, at.evaluate_id)]


def jobs_at(  # a training, and what is asked of it
    store_uri: str,
    training_id: str,
    spec: TrainJob,
    metrics: MetricsSpec,
    step: int,
    owner: str = "",
) -> dict[str, Submitted]:
    """Return the jobs that evaluate a checkpoint, by their ids, in the order of their making.

    Args:
        store_uri: Where the training is.
        training_id: Its id.
        spec: What it is.
        metrics: What is asked of the evaluation.
        step: Of the checkpoint.
        owner: Who submitted the training: the jobs count as his.
    """
    ids = evaluation_at(training_id, spec.name, step)
    made = {
        ids.sample_id: _drawing(store_uri, training_id, spec, metrics, step),
        ids.evaluate_id: _comparing(training_id, spec, metrics, ids),
    }
    steps = {ids.sample_id: f"at-{step}-samples", ids.evaluate_id: f"at-{step}"}
    return {
        job_id: Submitted(
            job,
            origin=Origin(parent=training_id, step=steps[job_id], at_step=step, user=owner),
        )
        for job_id, job in made.items()
    }


def drawing_of(spec: TrainJob, metrics: MetricsSpec) -> SamplingConfig:
    """Return how the samples of a checkpoint are drawn: each with the same noise."""
    num_steps = min(metrics.steps, spec.diffusion.num_timesteps)
    return SamplingConfig(method="ddim", num_steps=num_steps, microbatch_size=_MICROBATCH)


def _drawing(
    store_uri: str, training_id: str, spec: TrainJob, metrics: MetricsSpec, step: int
) -> SampleJob:
    return SampleJob(
        kind="sample",
        name=_name(spec, f"at-{step}-samples"),
        queue=spec.queue,
        priority=PRIORITY,
        model=ModelRef(checkpoint=f"{store_uri}/{JobPaths(training_id).checkpoint(step)}"),
        num_samples=metrics.num_samples,
        sampling=drawing_of(spec, metrics),
        shard_size=_shard_size(metrics.num_samples),
        tracking=SampleTrackingSpec(experiment=spec.tracking.experiment),
        resources=_resources(spec, uses_gpu=True),
    )


def _comparing(
    training_id: str, spec: TrainJob, metrics: MetricsSpec, ids: CheckpointEvaluation
) -> EvaluateJob:
    return EvaluateJob(
        kind="evaluate",
        name=_name(spec, f"at-{ids.step}"),
        queue=spec.queue,
        priority=PRIORITY,
        of=SetRef(job=ids.sample_id),
        against=SetRef(job=training_id),
        extractor=metrics.extractor,
        tracking=RunSpec(experiment=spec.tracking.experiment),
        resources=_resources(spec, uses_gpu=metrics.extractor.name != "pixels"),
    )


def _name(spec: TrainJob, part: str) -> str:
    return shortened(f"{spec.name}-{part}", MAX_NAME_LENGTH)


def _shard_size(num_samples: int) -> int:
    """Return a size by which several workers have something to do: a multiple of a microbatch."""
    passes = -(-num_samples // _MICROBATCH)
    return _MICROBATCH * max(1, min(16, passes // MAX_WORKERS))


def _resources(spec: TrainJob, *, uses_gpu: bool) -> SampleResources:
    """Return the room of small workers: one is enough to begin, more come where there is room."""
    gpus = spec.resources.gpus_per_worker if uses_gpu else 0
    return SampleResources(
        num_workers=Workers(min=1, max=MAX_WORKERS),
        gpus_per_worker=min(gpus, 1) if gpus != "auto" else gpus,
        cpus_per_worker=1 if gpus == 0 else "auto",
        accelerator=spec.resources.accelerator if gpus else None,
        labels=spec.resources.labels,
    )
