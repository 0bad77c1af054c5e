"""What an evaluation and a likelihood leave in the store, for tables and readers outside."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

from ddpm.metrics.classes import ClassShares
from ddpm.metrics.scores import Score
from orchestrator.evaluation.image_sets import ImageSet
from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.specs.measuring import ExtractorSpec
from orchestrator.specs.sections import DatasetSpec
from orchestrator.store.codec import Codec


@dataclass(frozen=True, kw_only=True)
class StoredScore:
    """A metric as `ddpm.metrics.scores.Score` has it, with what follows from its numbers.

    Attributes:
        value: What the samples get.
        spread: Its standard error.
        floor: What real images get against other real ones.
        floor_spread: The floor's standard deviation.
        floor_images: Real images on each side of it.
        num_samples: Samples that it compares.
        num_reference: With so many real images.
        k: Neighbours; None for a metric without.
        lower_is_better: Whether.
        is_at_floor: Whether it cannot be told from that of real images.
    """

    value: float
    spread: float
    floor: float
    floor_spread: float
    floor_images: int
    num_samples: int
    num_reference: int
    k: int | None
    lower_is_better: bool
    is_at_floor: bool

    @classmethod
    def of(cls, score: Score) -> Self:
        """Return a metric as it is stored."""
        return cls(**asdict(score), is_at_floor=score.is_at_floor)


@dataclass(frozen=True, kw_only=True)
class StoredClasses:
    """How samples spread over the classes of real images; nothing where these have no labels.

    Attributes:
        names: Of the classes.
        shares: Of the samples.
        real_shares: Of the real images that vote.
        accuracy: Share of held-out real images whose class is found; None without any.
        num_held_out: Held-out real images.
        k: Real images that vote.
    """

    names: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    real_shares: tuple[float, ...] = ()
    accuracy: float | None = None
    num_held_out: int = 0
    k: int = 0

    @classmethod
    def of(cls, names: tuple[str, ...], classes: ClassShares | None) -> Self:
        """Return the classes as they are stored."""
        return cls() if classes is None else cls(names=names, **asdict(classes))


@dataclass(frozen=True, kw_only=True)
class NearestPair:
    """A sample and the training image that lies nearest to it, by their numbers."""

    sample: int
    training_image: int


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        scores: Metrics by name, such as `kid-pixels`.
        memorisation: Numbers by name; {} where the reference is no data set.
        classes: Which classes the samples are of.
        nearest: The samples that lie nearest to training images, nearest first.
        remarks: What a reader should know.
        of: What was evaluated.
        against: The real images.
        extractor: What computed the features.
        extractor_sha256: Hash of that.
        statistics_sha256: Hash of the published statistics that were asked for; "" for none.
        speed: How fast the set was drawn, by name.
    """

    scores: Mapping[str, StoredScore]
    memorisation: Mapping[str, float]
    classes: StoredClasses
    nearest: Sequence[NearestPair]
    remarks: Sequence[str]
    of: ImageSet
    against: ImageSet
    extractor: ExtractorSpec
    extractor_sha256: str
    statistics_sha256: str
    speed: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class LikelihoodResult:
    """The bound of a training's model on images.

    Attributes:
        means: The bound, its parts and their standard errors, in bits per dimension, by name.
        curve: By "t", "bits" and "se": the mean term at each timestep that was drawn.
        num_images: Images.
        num_draws: Draws of timesteps and noise for each.
        split: Which of the data set's images.
        dataset: Of which data set.
        model: The checkpoint.
    """

    means: Mapping[str, float]
    curve: Mapping[str, Sequence[float | int]]
    num_images: int
    num_draws: int
    split: str
    dataset: DatasetSpec
    model: ResolvedModel


EVALUATION_RESULT = Codec(EvaluationResult, "evaluation", indent=1)
LIKELIHOOD_RESULT = Codec(LikelihoodResult, "likelihood", indent=1)
