"""What a job will do, computed without doing it: what `--dry-run` and `submit` print."""

import functools
from dataclasses import replace

from ddpm.baselines.sizes import count_latent_parameters
from ddpm.config import NetworkConfig, OwnConfig
from ddpm.network.unet_size import count_parameters
from orchestrator.artifacts.datasets.refs import DatasetRef, describe
from orchestrator.client.own_networks import own_parameters
from orchestrator.client.plan_forms import (
    ChildPlan,
    GroupPlan,
    JobPlan,
    LikelihoodPlan,
    OnTheWay,
    Plan,
    PreparationPlan,
    SamplePlan,
    TrainingPlan,
    Workers,
)
from orchestrator.lifecycle.curves import evaluated_steps
from orchestrator.specs.files import JobFile
from orchestrator.specs.group import Child, GroupJob
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import JOB_KINDS
from orchestrator.specs.likelihood import LikelihoodJob
from orchestrator.specs.on_the_way import PRIORITY, drawing_of
from orchestrator.specs.prepare import PrepareJob
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from orchestrator.specs.train import TrainJob
from orchestrator.store.objects import ObjectStore

_OPEN_VARIANCE = "the model's for all its timesteps, fixed_small for fewer"
_BYTES_PER_PARAMETER = 4 * 4  # model, moving average and two moments, float32


def plan_of(spec: Job | GroupJob, store: ObjectStore) -> Plan:
    """Return the plan of a job whose images are in the store; that of a group has its children's.

    Raises:
        DatasetError: The store has no such images.
    """
    if not isinstance(spec, GroupJob):
        return _plan_of_job(spec, store)
    children = tuple(_plan_of_child(child, store) for child in spec.children)
    return GroupPlan(
        kind=spec.kind,
        name=spec.name,
        unit=spec.unit,
        at_once=spec.max_concurrent or len(children),
        children=children,
    )


def plan_of_file(file: JobFile, store: ObjectStore) -> Plan:
    """Return the plan of what stands in a file, with its warnings. Raises: as `plan_of`."""
    return replace(plan_of(file.spec, store), warnings=tuple(file.warnings))


def _plan_of_child(child: Child, store: ObjectStore) -> ChildPlan:
    of_steps = {}
    if child.model_step is not None:
        of_steps[child.spec.model_field] = child.model_step
    if "dataset" in child.image_steps:
        of_steps["images"] = child.image_steps["dataset"]
    plan = _plan_of_job(child.spec, store)
    return ChildPlan(child.step, tuple(child.needs), child.settings, plan, of_steps)


@functools.singledispatch
def _plan_of_job(spec: Job, store: ObjectStore) -> Plan:
    """Return what can be said of any kind."""
    del store
    return JobPlan(
        kind=spec.kind,
        name=spec.name,
        unit=JOB_KINDS[spec.kind].unit,
        total=spec.total,
        workers=_workers(spec),
    )


def _workers(spec: Job) -> Workers:
    return Workers(
        workers_min=spec.num_workers.min,
        workers_max=spec.num_workers.max,
        gpus_per_worker=spec.resources.gpus_per_worker or 0,
    )


@_plan_of_job.register
def _plan_training(spec: TrainJob, store: ObjectStore) -> Plan:
    """Return parameters, steps, checkpoints, bytes and workers of a training."""
    plan = TrainingPlan(
        kind=spec.kind,
        name=spec.name,
        images=f"of job {spec.dataset.job}",
        compared_on_the_way=_on_the_way(spec),
        init=_name_of(spec.init) if spec.init else None,
        steps=spec.training.num_steps,
        checkpoints=-(-spec.training.num_steps // spec.checkpoints.every_steps),
        workers=spec.resources.num_workers,
        gpus_per_worker=spec.resources.gpus_per_worker,
    )
    if spec.dataset.sha256 is None:  # another job prepares them
        return plan
    return _with_images(plan, spec, describe(store, spec.dataset.sha256))


def _with_images(plan: TrainingPlan, spec: TrainJob, dataset: DatasetRef) -> TrainingPlan:
    """Return the plan with what follows from the images."""
    shape = (dataset.channels, dataset.height, dataset.width)
    model = spec.model.for_classes(dataset.num_classes)
    parameters = _count_parameters(model, shape, shape[0] * spec.diffusion.outputs_per_channel)
    further = len(spec.training.ema_decays)
    checkpoint_bytes = parameters * _BYTES_PER_PARAMETER * (4 + further) // 4
    held_out = round(dataset.num_images * spec.dataset.holdout_fraction)
    images, batch = dataset.num_images - held_out, spec.training.global_batch_size
    is_usual = (dataset.dtype, dataset.value_range) == ("uint8", (0.0, 255.0))
    by_class = dict(zip(dataset.class_names, dataset.class_counts, strict=True))
    return replace(
        plan,
        images=images,
        held_out_images=held_out,
        evaluation_images=min(spec.evaluation.num_images, held_out),
        image_shape=shape,
        values=None if is_usual else dataset.dtype,
        value_range=None if is_usual else dataset.value_range,
        classes=model.known_classes or by_class or None,
        parameters=parameters,
        epochs=round(plan.steps * batch / images, 2),
        checkpoint_bytes=checkpoint_bytes,
        bytes_kept=checkpoint_bytes * min(spec.checkpoints.keep, plan.checkpoints),
        images_per_worker_and_step=batch // plan.workers,
        images_per_pass=spec.training.images_per_pass(plan.workers),
    )


def _count_parameters(model: NetworkConfig, shape: tuple[int, int, int], out_channels: int) -> int:
    """Return the number of parameters; of another package's network by building it."""
    if isinstance(model, OwnConfig):
        return own_parameters(model, shape, out_channels)
    if model.family == "ddpm":
        return count_parameters(model, shape, out_channels)
    return count_latent_parameters(model, shape)


def _on_the_way(spec: TrainJob) -> OnTheWay | None:
    """Return what comparing samples of checkpoints costs."""
    metrics, total = spec.evaluation.metrics, spec.training.num_steps
    if metrics is None:
        return None
    checkpoints = len(evaluated_steps(metrics.every_steps, total))
    drawing = drawing_of(spec, metrics)
    passes = -(-metrics.num_samples // drawing.microbatch_size) * drawing.num_evaluations
    return OnTheWay(
        checkpoints=checkpoints,
        images=checkpoints * metrics.num_samples,
        network_passes=checkpoints * passes,
        extractor=metrics.extractor.name,
        priority=PRIORITY,
    )


@_plan_of_job.register
def _plan_sampling(spec: SampleJob, store: ObjectStore) -> Plan:
    """Return images, shards, passes of the network and workers of a sampling."""
    del store
    sampling = spec.sampling
    num_microbatches = -(-spec.num_samples // sampling.microbatch_size)
    is_open = sampling.method == "ddpm" and sampling.variance is None
    return SamplePlan(
        kind=spec.kind,
        name=spec.name,
        images=spec.num_samples,
        shards=-(-spec.num_samples // spec.shard_size),
        microbatches=num_microbatches,
        network_passes=num_microbatches * sampling.num_evaluations,
        variance=_OPEN_VARIANCE if is_open else None,
        workers=_workers(spec),
        model=_name_of(spec.model),
    )


@_plan_of_job.register
def _plan_likelihood(spec: LikelihoodJob, store: ObjectStore) -> Plan:
    """Return images, shards, passes of the network and workers of a likelihood."""
    if spec.dataset.sha256 is None:
        return LikelihoodPlan(kind=spec.kind, name=spec.name, images=f"of job {spec.dataset.job}")
    images = spec.count(describe(store, spec.dataset.sha256).num_images)
    shards = -(-images // spec.shard_size)
    passes = shards * spec.num_draws * spec.num_timesteps if spec.num_timesteps else None
    return LikelihoodPlan(
        kind=spec.kind,
        name=spec.name,
        images=images,
        draws=spec.num_draws,
        timesteps=spec.num_timesteps or "all of the model's",
        shards=shards,
        network_passes=passes,
        workers=_workers(spec),
        model=_name_of(spec.model),
    )


@_plan_of_job.register
def _plan_preparation(spec: PrepareJob, store: ObjectStore) -> Plan:
    """Return what will be read and by whom, and what the images become; nothing is read."""
    del store
    kept = {"source", "skip_damaged"}
    asked = spec.dataset.model_dump(mode="json", exclude_defaults=True, exclude=kept)
    return PreparationPlan(
        kind=spec.kind,
        name=spec.name,
        source=spec.dataset.source,
        images="counted when it runs",
        image_size="that of the images, which must be one",
        asked=asked,
        damaged="are passed over" if spec.dataset.skip_damaged else "end it, all listed",
        becomes="a data set of the store, in chunks of about 64 MiB",
        workers=_workers(spec),
    )


def _name_of(ref: ModelRef) -> str | None:
    return ref.job or ref.registered or ref.checkpoint
