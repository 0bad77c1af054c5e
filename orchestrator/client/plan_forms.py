"""The plans of jobs: what `submit --dry-run` says of each kind, before anything is done."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every plan says; a fact that is None is left out, those of workers stand alone.

    Attributes:
        kind: Of the job.
        name: Of the job.
        warnings: What was noticed when its file was read.
    """

    kind: str
    name: str
    warnings: tuple[str, ...] = ()

    def facts(self) -> dict[str, object]:
        """Return what is planned in plain JSON values, in the order in which people read it."""
        own: dict[str, object] = {}
        for name in (one.name for one in fields(self) if one.name != "warnings"):
            value = getattr(self, name)
            if isinstance(value, Workers):
                own |= asdict(value)
            elif value is not None:
                own[name] = _plain(value)
        return own

    def as_json(self) -> dict[str, object]:
        """Return it for programs, the warnings at the end."""
        return {**self.facts(), "warnings": list(self.warnings)}


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The worker pool of a job that works in units.

    Attributes:
        workers_min: It starts with no fewer.
        workers_max: It never has more.
        gpus_per_worker: 0 for a job on CPUs; or "auto".
    """

    workers_min: int
    workers_max: int
    gpus_per_worker: float | str


@dataclass(frozen=True, kw_only=True)
class JobPlan(Plan):
    """What can be said of any kind.

    Attributes:
        unit: What is counted: "steps".
        total: How many.
        workers: Who works.
    """

    unit: str
    total: int
    workers: Workers

    def facts(self) -> dict[str, object]:
        """Return the facts, the total under the name of its unit."""
        return {"kind": self.kind, "name": self.name, self.unit: self.total, **asdict(self.workers)}


@dataclass(frozen=True)
class OnTheWay:
    """What comparing samples of a training's checkpoints costs.

    Attributes:
        checkpoints: That are compared.
        images: That are drawn.
        network_passes: For all of them.
        extractor: What computes features.
        priority: Of the jobs.
    """

    checkpoints: int
    images: int
    network_passes: int
    extractor: str
    priority: int


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(Plan):
    """The plan of a training; of one whose images another job prepares, fewer facts are known.

    Attributes:
        images: That are trained on, or which job prepares them.
        held_out_images: For evaluation alone.
        evaluation_images: Of these, those that are used.
        image_shape: (C, H, W).
        compared_on_the_way: What samples of checkpoints cost.
        init: Which model it begins with.
        values: The type of the images' values, where it is another than most have.
        value_range: What stands for -1 and for 1, there.
        classes: Images by class; or how many classes the network knows.
        parameters: Of the network.
        steps: In all.
        epochs: How often each image is seen.
        checkpoints: That are written.
        checkpoint_bytes: Of one.
        bytes_kept: Of those that stay.
        workers: That train together.
        images_per_worker_and_step: Of the global batch.
        images_per_pass: That are computed at once.
        gpus_per_worker: 0 for a job on CPUs; or "auto".
    """

    images: int | str
    held_out_images: int | None = None
    evaluation_images: int | None = None
    image_shape: tuple[int, ...] | None = None
    compared_on_the_way: OnTheWay | None = None
    init: str | None = None
    values: str | None = None
    value_range: tuple[float, float] | None = None
    classes: Mapping[str, int] | int | None = None
    parameters: int | None = None
    steps: int
    epochs: float | None = None
    checkpoints: int
    checkpoint_bytes: int | None = None
    bytes_kept: int | None = None
    workers: int
    images_per_worker_and_step: int | None = None
    images_per_pass: int | None = None
    gpus_per_worker: float | str


@dataclass(frozen=True, kw_only=True)
class SamplePlan(Plan):
    """The plan of a sample job.

    Attributes:
        images: That are drawn.
        shards: That they are stored in.
        microbatches: That are drawn at once.
        network_passes: For all of them.
        variance: Which one is used, where that is not settled.
        workers: Who draws.
        model: What is drawn from.
    """

    images: int
    shards: int
    microbatches: int
    network_passes: int
    variance: str | None = None
    workers: Workers
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class LikelihoodPlan(Plan):
    """The plan of a likelihood; of one whose images another job prepares, the images alone.

    Attributes:
        images: Of which the bound is computed, or which job prepares them.
        draws: Of each.
        timesteps: That are drawn.
        shards: That results are stored in.
        network_passes: For all of them, where the number of timesteps is known.
        workers: Who computes.
        model: Whose bound it is.
    """

    images: int | str
    draws: int | None = None
    timesteps: int | str | None = None
    shards: int | None = None
    network_passes: int | None = None
    workers: Workers | None = None
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class PreparationPlan(Plan):
    """The plan of a preparation.

    Attributes:
        source: What is read.
        images: How many, in words.
        image_size: What it is where nothing else was asked.
        asked: What a job file says of the images beyond the defaults, by its words.
        damaged: What becomes of images that cannot be read.
        becomes: What the images become.
        workers: Who reads.
    """

    source: str
    images: str
    image_size: str
    asked: Mapping[str, object] = field(default_factory=dict)
    damaged: str
    becomes: str
    workers: Workers

    def facts(self) -> dict[str, object]:
        """Return the facts, what was asked among them."""
        own: dict[str, object] = {}
        for key, value in super().facts().items():
            own |= self.asked if key == "asked" else {key: value}
        return own


@dataclass(frozen=True)
class ChildPlan:
    """The plan of a job of a group.

    Attributes:
        step: Its step.
        needs: The steps that end before it begins.
        settings: In which it differs from the others of a sweep.
        plan: Of the job itself.
        of_steps: Which of its facts are what another step leaves, and of which step.
    """

    step: str
    needs: tuple[str, ...]
    settings: Mapping[str, object]
    plan: Plan
    of_steps: Mapping[str, str]

    def facts(self) -> dict[str, object]:
        """Return what is planned in plain JSON values."""
        place = {"step": self.step, "needs": list(self.needs), "settings": dict(self.settings)}
        of_steps = {key: f"of step {step}" for key, step in self.of_steps.items()}
        return {**place, **self.plan.facts(), **of_steps}


@dataclass(frozen=True, kw_only=True)
class GroupPlan(Plan):
    """The plan of a pipeline or a sweep.

    Attributes:
        unit: What is counted: "steps" or "runs".
        at_once: How many of its jobs run at a time.
        children: Its jobs.
    """

    unit: str
    at_once: int
    children: tuple[ChildPlan, ...]

    def facts(self) -> dict[str, object]:
        """Return the facts, those of all jobs among them."""
        own: dict[str, object] = {"kind": self.kind, "name": self.name}
        children = [child.facts() for child in self.children]
        return {**own, self.unit: len(children), "at_once": self.at_once, "children": children}
