"""What evaluations found, side by side: one row an evaluated sample set.

`results` reads them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.lifecycle.cost import Cost

MEASURES = (
    "fid",
    "fd",
    "fid-statistics",
    "fd-statistics",
    "kid",
    "precision",
    "recall",
    "density",
    "coverage",
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One metric of one set.

    Attributes:
        value: What it is.
        spread: Its standard error.
        floor: What real images get against real ones.
        floor_spread: How that varies.
        floor_images: Real images on each side of it.
        is_at_floor: Whether the two cannot be told apart.
        num_samples: Samples that it compares.
        num_reference: With so many real images.
        k: Neighbours; None for a metric without.
        lower_is_better: Whether.
    """

    value: float
    spread: float = 0.0
    floor: float = 0.0
    floor_spread: float = 0.0
    floor_images: int = 0
    is_at_floor: bool = False
    num_samples: int = 0
    num_reference: int = 0
    k: int | None = None
    lower_is_better: bool = False


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A row of a comparison.

    Attributes:
        job_id: The evaluation.
        samples: The sample set's job.
        training: The training's job, and its step; "" where it is gone.
        recipe: Hash of what the training was asked, its seed and name apart; "" where it is gone.
        reference: What it was compared with.
        extractor: What the features are of.
        settings: How the set was drawn, by the sample job's keys.
        metrics: By name.
        memorisation: Numbers by name.
        speed: Numbers of the sample job by name.
        cost: What the sample job's GPUs cost; None without prices, and of a mean of sets.
        training_cost: The same of the training.
        training_s: Seconds that the training's attempts took; None where it is gone.
        classes: Share of the samples by class; {} where the real images have no labels.
        real_classes: Share of the real images.
        classifier: How the classes were found, and how often that is right; "" without labels.
        num_sets: Sets that the row is the mean of, which differ in their seeds.
        nearest: Key of the picture of the samples nearest to training images.
    """

    job_id: str
    samples: str
    training: str = ""
    step: int = 0
    recipe: str = ""
    reference: str
    extractor: str
    settings: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, Measured] = field(default_factory=dict)
    memorisation: Mapping[str, float] = field(default_factory=dict)
    speed: Mapping[str, float] = field(default_factory=dict)
    cost: Cost | None = None
    training_cost: Cost | None = None
    training_s: float | None = None
    classes: Mapping[str, float] = field(default_factory=dict)
    real_classes: Mapping[str, float] = field(default_factory=dict)
    classifier: str = ""
    num_sets: int = 1
    nearest: str = ""

    @property
    def num_steps(self) -> int:
        """Steps of the reverse process; 0 where the sample job is gone."""
        return int(str(self.settings.get("num_steps", 0)))

    @property
    def family(self) -> str:
        """The model's family; "" where the training is gone."""
        return str(self.settings.get("family", ""))

    def metric(self, measure: str) -> Measured | None:
        """Return the metric of a measure, whatever its extractor."""
        names = (measure, f"{measure}-{self.extractor}")
        return next((self.metrics[name] for name in names if name in self.metrics), None)


def differing(rows: Iterable[Evaluated]) -> list[str]:
    """Return the settings in which rows differ, in the order of their keys."""
    all_rows = list(rows)
    keys = dict.fromkeys(key for row in all_rows for key in row.settings)
    return [key for key in keys if len({str(row.settings.get(key)) for row in all_rows}) > 1]


def setting(row: Evaluated, key: str) -> str:
    """Return how a set was drawn, for people; "" for what was not asked."""
    value = row.settings.get(key)
    return "" if value is None else str(value)


def measures_of(rows: Iterable[Evaluated]) -> Iterator[str]:
    """Yield the measures that at least one row has."""
    all_rows = list(rows)
    yield from (m for m in MEASURES if any(row.metric(m) for row in all_rows))
