"""What a job will do, computed without doing it: what `--dry-run` and `submit` print."""

import functools

from ddpm.baselines.sizes import count_latent_parameters
from ddpm.config import NetworkConfig, OwnConfig
from ddpm.network.unet_size import count_parameters
from orchestrator.artifacts.datasets.refs import DatasetRef, describe
from orchestrator.client.own_networks import own_parameters
from orchestrator.lifecycle.curves import evaluated_steps
from orchestrator.specs.group import GroupJob
from orchestrator.specs.job import Job, SampleJob, TrainJob
from orchestrator.specs.kinds import JOB_KINDS
from orchestrator.specs.likelihood import LikelihoodJob
from orchestrator.specs.on_the_way import PRIORITY, drawing_of
from orchestrator.specs.prepare import PrepareJob
from orchestrator.specs.sections import ModelRef
from orchestrator.store.objects import ObjectStore

_OPEN_VARIANCE = "the model's for all its timesteps, fixed_small for fewer"
_BYTES_PER_PARAMETER = 4 * 4  # model, moving average and two moments, float32


def plan_of(spec: Job | GroupJob, store: ObjectStore) -> dict[str, object]:
    """Return the plan of a job whose images are in the store; that of a group has its children's.

    Raises:
        DatasetError: The store has no such images.
    """
    if not isinstance(spec, GroupJob):
        return _plan_of_job(spec, store)
    children = [
        {
            "step": child.step,
            "needs": list(child.needs),
            "settings": child.settings,
            **plan_of(child.spec, store),
        }
        for child in spec.children
    ]
    for child, plan in zip(spec.children, children, strict=True):
        if child.model_step is not None:
            plan[child.spec.model_field] = f"of step {child.model_step}"
        if "dataset" in child.image_steps:
            plan["images"] = f"of step {child.image_steps['dataset']}"
    return {
        "kind": spec.kind,
        "name": spec.name,
        spec.unit: len(children),
        "at_once": spec.max_concurrent or len(children),
        "children": children,
    }


@functools.singledispatch
def _plan_of_job(spec: Job, store: ObjectStore) -> dict[str, object]:
    """Return what can be said of any kind."""
    del store
    return {
        "kind": spec.kind,
        "name": spec.name,
        JOB_KINDS[spec.kind].unit: spec.total,
        **_fleet(spec),
    }


def _fleet(spec: Job) -> dict[str, object]:
    return {
        "workers_min": spec.num_workers.min,
        "workers_max": spec.num_workers.max,
        "gpus_per_worker": spec.resources.gpus_per_worker or 0,
    }


@_plan_of_job.register
def _plan_training(spec: TrainJob, store: ObjectStore) -> dict[str, object]:
    """Return parameters, steps, checkpoints, bytes and workers of a training."""
    if spec.dataset.sha256 is None:
        return _plan_unseen(spec)
    dataset = describe(store, spec.dataset.sha256)
    shape = (dataset.channels, dataset.height, dataset.width)
    model = spec.model.for_classes(dataset.num_classes)
    out_channels = shape[0] * spec.diffusion.outputs_per_channel
    parameters = _count_parameters(model, shape, out_channels)
    further = len(spec.training.ema_decays)
    checkpoint_bytes = parameters * _BYTES_PER_PARAMETER * (4 + further) // 4
    steps, every = spec.training.num_steps, spec.checkpoints.every_steps
    num_checkpoints = -(-steps // every)
    held_out = round(dataset.num_images * spec.dataset.holdout_fraction)
    train_images = dataset.num_images - held_out
    return {
        "kind": spec.kind,
        "name": spec.name,
        "images": train_images,
        "held_out_images": held_out,
        "evaluation_images": min(spec.evaluation.num_images, held_out),
        "image_shape": list(shape),
        **_on_the_way(spec),
        **({"init": _told_model(spec.init)} if spec.init else {}),
        **_told_of(dataset),
        **({"classes": model.known_classes} if model.known_classes else {}),
        "parameters": parameters,
        "steps": steps,
        "epochs": round(steps * spec.training.global_batch_size / train_images, 2),
        "checkpoints": num_checkpoints,
        "checkpoint_bytes": checkpoint_bytes,
        "bytes_kept": checkpoint_bytes * min(spec.checkpoints.keep, num_checkpoints),
        "workers": spec.resources.num_workers,
        "images_per_worker_and_step": spec.training.global_batch_size // spec.resources.num_workers,
        "images_per_pass": spec.training.images_per_pass(spec.resources.num_workers),
        "gpus_per_worker": spec.resources.gpus_per_worker,
    }


def _plan_unseen(spec: TrainJob) -> dict[str, object]:
    """Return what can be said of a training whose images another job prepares."""
    return {
        "kind": spec.kind,
        "name": spec.name,
        "images": f"of job {spec.dataset.job}",
        **_on_the_way(spec),
        **({"init": _told_model(spec.init)} if spec.init else {}),
        "steps": spec.training.num_steps,
        "checkpoints": -(-spec.training.num_steps // spec.checkpoints.every_steps),
        "workers": spec.resources.num_workers,
        "gpus_per_worker": spec.resources.gpus_per_worker,
    }


def _count_parameters(model: NetworkConfig, shape: tuple[int, int, int], out_channels: int) -> int:
    """Return the number of parameters; of another package's network by building it."""
    if isinstance(model, OwnConfig):
        return own_parameters(model, shape, out_channels)
    if model.family == "ddpm":
        return count_parameters(model, shape, out_channels)
    return count_latent_parameters(model, shape)


def _on_the_way(spec: TrainJob) -> dict[str, object]:
    """Return what comparing samples of checkpoints costs."""
    metrics, total = spec.evaluation.metrics, spec.training.num_steps
    if metrics is None:
        return {}
    checkpoints = len(evaluated_steps(metrics.every_steps, total))
    drawing = drawing_of(spec, metrics)
    passes = -(-metrics.num_samples // drawing.microbatch_size) * drawing.num_evaluations
    told = {
        "checkpoints": checkpoints,
        "images": checkpoints * metrics.num_samples,
        "network_passes": checkpoints * passes,
        "extractor": metrics.extractor.name,
        "priority": PRIORITY,
    }
    return {"compared_on_the_way": told}


def _told_of(dataset: DatasetRef) -> dict[str, object]:
    """Return what is not as it is for most: labels, and values of another type or range."""
    told: dict[str, object] = {}
    if (dataset.dtype, dataset.value_range) != ("uint8", (0.0, 255.0)):
        told["values"] = dataset.dtype
        told["value_range"] = list(dataset.value_range)
    if dataset.class_names:
        told["classes"] = dict(zip(dataset.class_names, dataset.class_counts, strict=True))
    return told


@_plan_of_job.register
def _plan_sampling(spec: SampleJob, store: ObjectStore) -> dict[str, object]:
    """Return images, shards, passes of the network and workers of a sampling."""
    del store
    sampling = spec.sampling
    num_microbatches = -(-spec.num_samples // sampling.microbatch_size)
    is_open = sampling.method == "ddpm" and sampling.variance is None
    return {
        "kind": spec.kind,
        "name": spec.name,
        "images": spec.num_samples,
        "shards": -(-spec.num_samples // spec.shard_size),
        "microbatches": num_microbatches,
        "network_passes": num_microbatches * sampling.num_evaluations,
        **({"variance": _OPEN_VARIANCE} if is_open else {}),
        **_fleet(spec),
        "model": _told_model(spec.model),
    }


@_plan_of_job.register
def _plan_likelihood(spec: LikelihoodJob, store: ObjectStore) -> dict[str, object]:
    """Return images, shards, passes of the network and workers of a likelihood."""
    if spec.dataset.sha256 is None:
        return {"kind": spec.kind, "name": spec.name, "images": f"of job {spec.dataset.job}"}
    images = spec.count(describe(store, spec.dataset.sha256).num_images)
    shards = -(-images // spec.shard_size)
    timesteps: int | str = spec.num_timesteps or "all of the model's"
    passes = shards * spec.num_draws * spec.num_timesteps if spec.num_timesteps else None
    return {
        "kind": spec.kind,
        "name": spec.name,
        "images": images,
        "draws": spec.num_draws,
        "timesteps": timesteps,
        "shards": shards,
        **({"network_passes": passes} if passes else {}),
        **_fleet(spec),
        "model": _told_model(spec.model),
    }


@_plan_of_job.register
def _plan_preparation(spec: PrepareJob, store: ObjectStore) -> dict[str, object]:
    """Return what will be read and by whom, and what the images become; nothing is read."""
    del store
    kept = {"source", "skip_damaged"}
    asked = spec.dataset.model_dump(mode="json", exclude_defaults=True, exclude=kept)
    return {
        "kind": spec.kind,
        "name": spec.name,
        "source": spec.dataset.source,
        "images": "counted when it runs",
        "image_size": "that of the images, which must be one",
        **asked,
        "damaged": "are passed over" if spec.dataset.skip_damaged else "end it, all listed",
        "becomes": "a data set of the store, in chunks of about 64 MiB",
        **_fleet(spec),
    }


def _told_model(ref: ModelRef) -> str | None:
    return ref.job or ref.registered or ref.checkpoint
