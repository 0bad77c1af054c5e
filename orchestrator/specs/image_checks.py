"""What of a job does not go with the images of its data set, or looks odd beside them."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from ddpm.config import ConfigError, UNetConfig
from orchestrator.counts import counted
from orchestrator.errors import BadInputError
from orchestrator.specs.checks import Gives, Remark
from orchestrator.specs.job import Job
from orchestrator.specs.likelihood import LikelihoodJob
from orchestrator.specs.measuring import MetricsSpec
from orchestrator.specs.train import TrainJob

_MANY_PIXELS = 4096
_FEW_IMAGES = 200


@dataclass(frozen=True)
class ImagesSeen:
    """What is known of a data set at submit: N, (C, H, W) of each image, classes and numbers."""

    num_images: int
    shape: tuple[int, int, int]
    num_classes: int = 0
    dtype: str = "uint8"
    value_range: tuple[float, float] = (0.0, 255.0)


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
            f"evaluation.metrics: {math.prod(seen.shape):,} raw pixels say little about large "
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
