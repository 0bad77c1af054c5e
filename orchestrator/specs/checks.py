"""What cannot work though every field is right by itself, and what would work but looks odd.

Said when a job is submitted, with the place in the file. Not part of the models: a spec that is
stored already must read as it did when it was put.
"""

import functools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ddpm.config import ConfigError, UNetConfig
from orchestrator.counts import counted
from orchestrator.errors import BadInputError
from orchestrator.specs.job import Job, SampleJob, TrainJob
from orchestrator.specs.likelihood import LikelihoodJob
from orchestrator.specs.measuring import MetricsSpec
from orchestrator.specs.sections import ModelRef
from orchestrator.specs.yaml_nodes import Location
from orchestrator.store.keys import check_name

MAX_STEPS = 999_999_999  # keys of checkpoints have nine digits
MAX_TIMESTEPS = 1_000_000
ODD_LEARNING_RATE = 0.05
_MANY_PIXELS = 4096
_FEW_IMAGES = 200
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


@dataclass(frozen=True)
class ImagesSeen:
    """What is known of a data set at submit: N, (C, H, W) of each image, classes and numbers."""

    num_images: int
    shape: tuple[int, int, int]
    num_classes: int = 0
    dtype: str = "uint8"
    value_range: tuple[float, float] = (0.0, 255.0)


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
    if ref.registered is not None and (told := registered_fault(ref.registered, field)):
        yield Remark(((field, "registered"),), told)


def registered_fault(registered: str, field: str = "model") -> str | None:
    """Return why a text, which a field has, cannot name a registered model; None if it can."""
    if found := _MLFLOW_URI.fullmatch(registered):
        right = f"{found['name']}{found['rest']}"
        return f"{field}.registered: write {registered!r} as {right}"
    found = _REGISTERED.fullmatch(registered)
    if found is None:
        return (
            f"{field}.registered {registered!r} must be name@alias or name/version, "
            "as digits@champion or digits/3"
        )
    if found["version"] and not 1 <= int(found["version"]) <= MAX_VERSION:
        return f"{field}.registered: there can be no version {found['version']}"
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


@functools.singledispatch
def remarks_on_images(spec: Job, seen: ImagesSeen, gives: Gives) -> Iterator[Remark]:
    """Yield what the images tell of a job; of a kind without a form of its own, nothing."""
    del spec, seen, gives
    yield from ()


@remarks_on_images.register
def _of_likelihood(spec: LikelihoodJob, seen: ImagesSeen, gives: Gives) -> Iterator[Remark]:
    del gives
    try:
        spec.count(seen.num_images)
    except BadInputError as error:
        yield Remark((("dataset", "source"), ("split",), ("num_images",)), str(error))


@remarks_on_images.register
def _of_training(spec: TrainJob, seen: ImagesSeen, gives: Gives) -> Iterator[Remark]:
    try:
        spec.model.for_classes(seen.num_classes)
    except ConfigError as error:
        yield Remark((("dataset", "source"), ("model", "num_classes")), f"model.{error}")
    fraction = spec.dataset.holdout_fraction
    held_out = round(seen.num_images * fraction)
    left = seen.num_images - held_out
    if left < 1:
        yield Remark(
            (("dataset", "source"), ("dataset", "holdout_fraction")),
            f"dataset.holdout_fraction ({fraction:g}) holds out all "
            f"{counted(seen.num_images, 'image')} and leaves none to train on; take less, "
            "or more images",
        )
        return
    batch = spec.training.global_batch_size
    if batch > left:
        yield Remark(
            (("dataset", "source"), ("training", "global_batch_size")),
            f"training.global_batch_size ({batch}) is above the {counted(left, 'image')} to train "
            "on: each stands several times in every step",
            is_fatal=False,
        )
    wanted = spec.evaluation.num_images
    if wanted > held_out:
        used = f"{held_out} {'is' if held_out == 1 else 'are'} used"
        used = used if held_out else "there are no bits per dimension"
        there = counted(held_out, "image")
        yield Remark(
            (("dataset", "source"), ("evaluation", "num_images")),
            f"evaluation.num_images ({wanted}) is above the {there} held out: {used}",
            is_fatal=False,
        )
    yield from _on_attention(spec, seen, gives)
    if spec.evaluation.metrics is not None:
        yield from _on_comparing(spec.evaluation.metrics, seen, left)


def _on_comparing(metrics: MetricsSpec, seen: ImagesSeen, left: int) -> Iterator[Remark]:
    """Yield why samples of checkpoints can't be compared with the images, or not well."""
    places = (("dataset", "source"), ("evaluation", "metrics"))
    if (seen.dtype, seen.value_range) != ("uint8", (0.0, 255.0)):
        message = (
            f"evaluation.metrics: the images hold {seen.dtype}; features are those of 8-bit images"
        )
        yield Remark(places, f"{message}: take it out")
    elif metrics.extractor.name == "pixels" and math.prod(seen.shape) > _MANY_PIXELS:
        yield Remark(
            places,
            f"evaluation.metrics: {math.prod(seen.shape):,} raw pixels tell little of large "
            "images; extractor {name: efflite0} sees more",
            is_fatal=False,
        )
    if left < _FEW_IMAGES:
        message = (
            f"evaluation.metrics: {counted(left, 'image')} to train on are few to compare with"
        )
        yield Remark(places, f"{message}; errors are large", is_fatal=False)


def _on_attention(spec: TrainJob, seen: ImagesSeen, gives: Gives) -> Iterator[Remark]:
    model = spec.model
    if not isinstance(model, UNetConfig) or model.family != "ddpm":
        return
    height, width = seen.shape[1:]
    levels = [height >> level for level in range(len(model.channel_multipliers))]
    wrong = [size for size in model.attention_resolutions if size not in levels]
    if not wrong:
        return
    place = ("model", "attention_resolutions")
    yield Remark(
        (("dataset", "source"), place),
        f"model.attention_resolutions: no level has the height {', '.join(map(str, wrong))}; those "
        f"of {height}x{width} images have {', '.join(map(str, levels))}"
        + ("" if gives(place) else ", so that only the middle of the network has attention"),
        is_fatal=gives(place),
    )
