"""Whether a training may go on where another one ended: all that fixes its bits must be the same.

`ddpmctl extend` makes such a job, and `init: {job: JOB, weights: all}` asks for the same.
"""

import dataclasses
from collections.abc import Iterator

from orchestrator.specs.train import TrainJob
from orchestrator.specs.yaml_nodes import Location

ALL = "all"


def goes_on(spec: TrainJob) -> bool:
    """Tell whether a training takes over the whole checkpoint of another one."""
    return spec.init is not None and spec.init.weights == ALL


def obstacles(old: TrainJob, new: TrainJob, taken: int) -> Iterator[tuple[Location, str]]:
    """Yield why a training cannot go on where another one ended, with the field at fault.

    Args:
        old: What was asked of the one that ended.
        new: What is asked now.
        taken: The steps of the checkpoint that it would go on from.
    """
    steps, schedule = new.training.num_steps, new.training.lr_schedule
    if new.training.lr_depends_on_length:
        message = (
            f"training.lr_schedule {schedule} depends on num_steps, so that {steps} steps are "
            f"others from the first on than those of {old.training.num_steps}"
        )
        yield ("training", "lr_schedule"), message
    if steps <= taken:
        message = f"training.num_steps must be above {taken}, which are taken, not {steps}"
        yield ("training", "num_steps"), message
    for place, theirs, ours in _pairs(old, new):
        if theirs != ours:
            yield place, f"{'.'.join(map(str, place))} was {theirs} and is {ours}: it must stay"


def _pairs(old: TrainJob, new: TrainJob) -> Iterator[tuple[Location, object, object]]:
    """Yield what must be equal: where it stands, theirs, ours."""
    for section in ("model", "diffusion", "training"):
        theirs, ours = getattr(old, section), getattr(new, section)
        for field in dataclasses.fields(theirs):
            name = field.name
            if (section, name) != ("training", "num_steps"):
                yield (section, name), getattr(theirs, name), getattr(ours, name)
    for name in ("sha256", "holdout_fraction", "shuffle"):
        yield ("dataset", name), getattr(old.dataset, name), getattr(new.dataset, name)
    workers = old.resources.num_workers, new.resources.num_workers
    yield (("resources", "num_workers"), *workers)
