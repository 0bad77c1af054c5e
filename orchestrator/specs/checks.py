"""What cannot work though every field is right by itself, and what would work but looks odd.

Said when a job is submitted, with the place in the file. Not part of the models: a spec that is
stored already must read as it did when it was put.
"""

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ddpm.config import UNetConfig
from orchestrator.counts import counted
from orchestrator.errors import BadInputError
from orchestrator.specs.job import Job
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from orchestrator.specs.train import TrainJob
from orchestrator.specs.yaml_nodes import Location
from orchestrator.store.names import check_name

MAX_STEPS = 999_999_999  # keys of checkpoints have nine digits
MAX_TIMESTEPS = 1_000_000
ODD_LEARNING_RATE = 0.05
MAX_VERSION = 2**31 - 1

_COMMIT_URI = re.compile(r"s3://[^/]+/(.+/)?jobs/[a-z0-9-]+/checkpoints/step-\d+\.json")
_MLFLOW_URI = re.compile(r"models:/{1,2}(?P<name>[^/@]+)(?P<rest>[/@].+)")
_REGISTERED = re.compile(r"(?P<name>[^/@:\s]+)(@(?P<alias>[^/@\s]+)|/(?P<version>\d+))")

Gives = Callable[[Location], bool]
"""Tells whether a value was written by the user, and is no default."""


@dataclass(frozen=True)
class Remark:
    """One thing to say of a job.

    Attributes:
        places: The fields that it is about; the last one that was written is pointed at.
        message: What, which value, and what to do.
        is_fatal: It cannot work.
    """

    places: tuple[Location, ...]
    message: str
    is_fatal: bool = True


def remarks_on(spec: Job, gives: Gives) -> Iterator[Remark]:
    """Yield what the file alone tells of a job."""
    if spec.model_input is not None:
        yield from _on_model(spec.model_input, spec.model_field)
    yield from _on_kind(spec, gives)


@functools.singledispatch
def _on_kind(spec: Job, gives: Gives) -> Iterator[Remark]:
    del spec, gives
    yield from ()


@_on_kind.register
def _on_training(spec: TrainJob, gives: Gives) -> Iterator[Remark]:
    yield from _on_width(spec)
    yield from _on_steps(spec)
    yield from _on_timesteps(spec, gives)
    if spec.evaluation.metrics is not None:
        yield from _on_the_way(spec)


def _on_the_way(spec: TrainJob) -> Iterator[Remark]:
    resources = spec.resources
    if resources.gpus_per_worker == 0 and resources.cpus_per_worker == "auto":
        yield Remark(
            (("evaluation", "metrics"), ("resources", "cpus_per_worker")),
            "evaluation.metrics: with resources.cpus_per_worker auto the training takes all CPUs "
            "of a machine, so that its checkpoints are compared once it has ended, unless there "
            "is another; give it fewer CPUs",
            is_fatal=False,
        )


def _on_width(spec: TrainJob) -> Iterator[Remark]:
    model = spec.model
    if isinstance(model, UNetConfig) and model.family == "ddpm" and model.loses_embeddings:
        yield Remark(
            (("model",), ("model", "channel_multipliers"), ("model", "channels")),
            f"model.channels ({model.channels}) times channel_multipliers is 32 at most: each "
            "group norm takes the embedding of timesteps and labels away, so the network draws as "
            "if it knew neither; give one level 64",
            is_fatal=False,
        )


def _on_steps(spec: TrainJob) -> Iterator[Remark]:
    training = spec.training
    steps, rate = training.num_steps, training.learning_rate
    if steps > MAX_STEPS:
        message = f"training.num_steps must be {MAX_STEPS:,} at most, not {steps:.3g}"
        yield Remark((("training", "num_steps"),), message)
    if training.lr_warmup_steps > steps:
        yield Remark(
            (("training", "num_steps"), ("training", "lr_warmup_steps")),
            f"training.lr_warmup_steps ({training.lr_warmup_steps}) is longer than the run "
            f"(training.num_steps: {steps}): the learning rate never reaches its peak",
            is_fatal=False,
        )
    if rate > ODD_LEARNING_RATE:
        yield Remark(
            (("training", "learning_rate"),),
            f"training.learning_rate is {rate:g}: {training.optimizer} moves every weight by about "
            "that much in a step; 1e-5 to 1e-2 are usual",
            is_fatal=False,
        )
    every = spec.checkpoints.every_steps
    if every > MAX_STEPS:
        message = f"checkpoints.every_steps must be {MAX_STEPS:,} at most, not {every:.3g}"
        yield Remark((("checkpoints", "every_steps"),), message)


def _on_timesteps(spec: TrainJob, gives: Gives) -> Iterator[Remark]:
    total = spec.diffusion.num_timesteps
    if total > MAX_TIMESTEPS:
        message = f"diffusion.num_timesteps must be {MAX_TIMESTEPS:,} at most, not {total:.3g}"
        yield Remark((("diffusion", "num_timesteps"),), message)
    used = {
        ("tracking", "sample_steps"): (
            spec.tracking.sample_steps if spec.tracking.sample_every_steps else 0
        ),
        ("evaluation", "num_timesteps"): (
            spec.evaluation.num_timesteps if spec.evaluation.num_images else 0
        ),
        ("evaluation", "metrics", "steps"): (
            spec.evaluation.metrics.steps if spec.evaluation.metrics else 0
        ),
    }
    for place, steps in used.items():
        if steps > total and (gives(place) or spec.model.family == "ddpm"):
            yield Remark(
                (("diffusion", "num_timesteps"), place),
                f"{'.'.join(place)} ({steps}) is above diffusion.num_timesteps ({total}): "
                + (f"ask for {total} at most" if gives(place) else f"{total} are taken"),
                is_fatal=gives(place),
            )


def _on_model(ref: ModelRef, field: str) -> Iterator[Remark]:
    if ref.job is not None:
        try:
            check_name(f"{field}.job", ref.job)
        except BadInputError as error:
            yield Remark(((field, "job"),), str(error))
    if ref.checkpoint is not None and _COMMIT_URI.fullmatch(ref.checkpoint) is None:
        yield Remark(
            ((field, "checkpoint"),),
            f"{field}.checkpoint {ref.checkpoint!r} must be the s3:// URI of a checkpoint's "
            "commit: s3://bucket/prefix/jobs/<id>/checkpoints/step-<number>.json",
        )
    if ref.registered is not None and (fault := registered_fault(ref.registered, field)):
        yield Remark(((field, "registered"),), fault)


def registered_fault(registered: str, field: str = "model") -> str | None:
    """Return why a text, which a field has, cannot name a registered model; None if it can."""
    if match := _MLFLOW_URI.fullmatch(registered):
        right = f"{match['name']}{match['rest']}"
        return f"{field}.registered: write {registered!r} as {right}"
    match = _REGISTERED.fullmatch(registered)
    if match is None:
        return (
            f"{field}.registered {registered!r} must be name@alias or name/version, "
            "as digits@champion or digits/3"
        )
    if match["version"] and not 1 <= int(match["version"]) <= MAX_VERSION:
        return f"{field}.registered: there can be no version {match['version']}"
    return None


@_on_kind.register
def _on_drawing(spec: SampleJob, gives: Gives) -> Iterator[Remark]:
    steps, images = spec.sampling.num_steps, spec.num_samples
    if steps > MAX_TIMESTEPS:
        message = f"sampling.num_steps must be {MAX_TIMESTEPS:,} at most, not {steps:.3g}"
        yield Remark((("sampling", "num_steps"),), message)
    labels = spec.sampling.labels
    if isinstance(labels, dict) and sum(labels.values()) != images:
        asked = counted(sum(labels.values()), "image")
        message = f"sampling.labels asks for {asked}, num_samples for {images}"
        yield Remark((("num_samples",), ("sampling", "labels")), f"{message}: make them equal")
    shown = {
        ("sampling", "trajectory"): spec.sampling.trajectory,
        ("tracking", "num_sample_images"): spec.tracking.num_sample_images,
    }
    for place, number in shown.items():
        if number > images and gives(place):
            message = f"{'.'.join(place)} ({number}) is above num_samples: {images} are taken"
            yield Remark((("num_samples",), place), message, is_fatal=False)
    num_shards = -(-images // spec.shard_size)
    most = spec.num_workers.max
    if most > num_shards:
        yield Remark(
            (("shard_size",), ("resources", "num_workers")),
            f"resources.num_workers ({most}) is above the number of shards ({num_shards}): the "
            "others have nothing to do; a smaller shard_size makes more shards",
            is_fatal=False,
        )
