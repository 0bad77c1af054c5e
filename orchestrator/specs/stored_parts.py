"""What is asked of a stored spec without the models of job files, which take longer to import.

Each form names the few fields that somebody reads, and passes over the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.store.codec import Codec


@dataclass(frozen=True)
class ChildSpec:
    """What a child of a group is.

    Attributes:
        kind: Its kind.
        name: Its name.
    """

    kind: str = ""
    name: str = ""


@dataclass(frozen=True)
class StoredChild:
    """One child of a group.

    Attributes:
        step: Its step.
        job_id: The id that it has, or will have.
        spec: What it is.
        settings: What tells it from the other runs of a sweep.
        needs: The steps that come before it.
    """

    step: str
    job_id: str
    spec: ChildSpec = field(default_factory=ChildSpec)
    settings: Mapping[str, object] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupParts:
    """The children of a group."""

    children: tuple[StoredChild, ...]


@dataclass(frozen=True)
class _Training:
    num_steps: int = 0


@dataclass(frozen=True)
class _Metrics:
    every_steps: int = 0


@dataclass(frozen=True)
class _Evaluation:
    metrics: _Metrics | None = None


@dataclass(frozen=True)
class _Checkpoints:
    keep_best: str | None = None


@dataclass(frozen=True)
class _Tracking:
    registered_model: str | None = None


@dataclass(frozen=True)
class CurveParts:
    """What a training asked of the curve of its checkpoints; nothing of a job of another kind.

    Attributes:
        name: Its name.
        training: How many steps it takes.
        evaluation: After how many steps a checkpoint is evaluated; without metrics none is.
        checkpoints: By which measure the best one is kept.
        tracking: As what its model is registered.
    """

    name: str = ""
    training: _Training = field(default_factory=_Training)
    evaluation: _Evaluation = field(default_factory=_Evaluation)
    checkpoints: _Checkpoints = field(default_factory=_Checkpoints)
    tracking: _Tracking = field(default_factory=_Tracking)

    @property
    def every_steps(self) -> int:
        """After how many steps a checkpoint is evaluated; 0 where none is."""
        return self.evaluation.metrics.every_steps if self.evaluation.metrics else 0


GROUP_PARTS = Codec(GroupParts, "children of the group")
CURVE_PARTS = Codec(CurveParts, "spec")
