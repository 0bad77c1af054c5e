"""What the features of two sets say: metrics beside their floors, and signs of memorisation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpm.metrics.blocks import Rows, chosen
from ddpm.metrics.classes import ClassShares, class_shares
from ddpm.metrics.neighbours import (
    Nearest,
    authentic_share,
    copying_score,
    kth_distances,
    nearest_in,
)
from ddpm.metrics.scores import Score, score_all, score_from_statistics
from ddpm.training.data import ImageDataset
from orchestrator.artifacts.datasets.labels import ClassLabels
from orchestrator.evaluation.extractors import metric_name
from orchestrator.evaluation.image_sets import ImageSet
from orchestrator.evaluation.statistics import Statistics
from orchestrator.jobs.heartbeat import Heartbeat
from orchestrator.specs.evaluate import EvaluateJob

NUM_SHOWN = 16
COPIES_BELOW = -3.0
MIN_HELD_OUT = 20  # below, the copying score's normal law does not hold

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What an evaluation found.

    Attributes:
        scores: Metrics by name, such as `kid-pixels`.
        memorisation: Numbers by name; {} where the reference is no data set.
        shown: Samples that lie nearest to a training image, nearest first.
        neighbours: The training image next to each of them.
        remarks: What a reader should know.
        classes: Which classes the samples are of; None without labels of real images.
        class_names: Of these classes.
    """

    scores: dict[str, Score]
    memorisation: dict[str, float]
    shown: Indices
    neighbours: Indices
    remarks: tuple[str, ...]
    classes: ClassShares | None = None
    class_names: tuple[str, ...] = ()

    def numbers(self) -> dict[str, float]:
        """Return what is logged to MLflow: each metric with its spread and its floor."""
        numbers: dict[str, float] = dict(self.memorisation)
        if self.classes is not None:
            numbers["rarest_class_share"] = min(self.classes.shares)
            if self.classes.accuracy is not None:
                numbers["classifier_accuracy"] = self.classes.accuracy
        for name, score in self.scores.items():
            numbers |= {
                name: score.value,
                f"{name}_se": score.spread,
                f"{name}_floor": score.floor,
            }
        return numbers

    def headline(self) -> str:
        """Return the line that `status` shows."""
        kid = next(name for name in self.scores if name.startswith("kid-"))
        lines = [f"{kid} {self.scores[kid].value:.4f} ± {self.scores[kid].spread:.4f}"]
        for name in ("precision", "recall", "coverage"):
            full_name = next(full for full in self.scores if full.startswith(f"{name}-"))
            lines.append(f"{name} {self.scores[full_name].value:.3f}")
        return ", ".join(lines)


def split_reference(images: ImageSet) -> tuple[Indices, Indices]:
    """Return which images of a set training saw, and which it held out, as training splits them."""
    numbers = np.arange(images.num_images)
    if images.form != "dataset":
        return numbers, numbers[:0]
    blank = np.broadcast_to(np.uint8(0), (images.num_images, 1, 1, 1))
    train, holdout = ImageDataset(blank, numbers).split(images.holdout_fraction)
    return train.members, holdout.members


def score_features(
    spec: EvaluateJob,
    samples: Rows,
    reference: Rows,
    images: ImageSet,
    labels: ClassLabels | None = None,
    statistics: Statistics | None = None,
) -> Findings:
    """Compare samples with real images.

    Args:
        spec: What was asked.
        samples: (N, D).
        reference: (M, D), of all images of the reference set.
        images: That set.
        labels: Its classes, if it has some.
        statistics: Published ones, if they were asked for.
    """
    train_images, held_out = split_reference(images)
    train = chosen(reference, train_images)
    named = {
        metric_name(measure, spec.extractor): score
        for measure, score in score_all(samples, train, k=spec.k, seed=spec.seed).items()
    }
    remarks = []
    smaller = min(len(samples), len(train))
    if smaller <= samples.shape[1]:
        remarks.append(
            f"no {metric_name('frechet', spec.extractor)}: it needs more than {samples.shape[1]} "
            f"images on each side, there are {smaller}; the kernel distance has no such bias"
        )
    elif statistics is not None:
        named[metric_name("statistics", spec.extractor)] = score_from_statistics(
            samples, train, statistics.mean, statistics.covariance, seed=spec.seed
        )
    nearest = nearest_in(samples, train)
    is_dataset = images.form == "dataset"
    memorisation = _memorisation(nearest, train, chosen(reference, held_out)) if is_dataset else {}
    remarks += [*_below_floor(named), *_copying(memorisation)]
    shown = np.argsort(nearest.distances, kind="stable")[:NUM_SHOWN]
    return Findings(
        scores=named,
        memorisation=memorisation,
        shown=shown,
        neighbours=train_images[nearest.indices[shown]],
        remarks=tuple(remarks),
        classes=_classes(spec, samples, reference, labels, (train_images, held_out)),
        class_names=labels.names if labels else (),
    )


def _below_floor(scores: Mapping[str, Score]) -> Iterator[str]:
    """Yield which numbers are as good as real images get, so that they say nothing finer."""
    lines = [
        f"{name} {score.value:.4f} (floor {score.floor:.4f})"
        for name, score in scores.items()
        if score.is_at_floor
    ]
    if lines:
        yield f"at or below its floor, as real ones are at this number: {', '.join(lines)}"


def _copying(memorisation: Mapping[str, float]) -> Iterator[str]:
    score = memorisation.get("copying_score", 0.0)
    if score < COPIES_BELOW:
        yield (
            f"copying_score {score:.1f} is below {COPIES_BELOW:g}: samples lie nearer to training "
            "images than held-out images do, so some are copies; look at evaluation/nearest.png"
        )


def _classes(
    spec: EvaluateJob,
    samples: Rows,
    reference: Rows,
    labels: ClassLabels | None,
    split: tuple[Indices, Indices],
) -> ClassShares | None:
    if labels is None:
        return None
    train, held_out = split
    return class_shares(
        samples,
        (chosen(reference, train), labels.values[train]),
        (chosen(reference, held_out), labels.values[held_out]),
        num_classes=len(labels.names),
        k=spec.k,
    )


def _memorisation(nearest: Nearest, train: Rows, held_out: Rows) -> dict[str, float]:
    gaps = kth_distances(train, 1)
    numbers = {
        "authentic_share": authentic_share(nearest, gaps),
        "nearest_mean": float(nearest.distances.mean()),
        "nearest_min": float(nearest.distances.min()),
        "train_nearest_mean": float(gaps.mean()),
        "train_nearest_min": float(gaps.min()),
    }
    if len(held_out) >= MIN_HELD_OUT:
        of_held_out = nearest_in(held_out, train).distances
        numbers["copying_score"] = copying_score(nearest.distances, of_held_out)
        numbers["held_out_nearest_mean"] = float(of_held_out.mean())
    return numbers


def speed_of(heartbeat: Heartbeat) -> dict[str, float]:
    """Return how fast a sample set was drawn, from its job's own last heartbeat."""
    wanted = ("mean_images_per_s", "useful_cpu_s_per_1000_images", "useful_gpu_s_per_1000_images")
    details = heartbeat.details
    return {name: float(details[name]) for name in wanted if name in details}
