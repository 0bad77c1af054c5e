"""What is read of a stored spec without the models is what these models wrote."""

from pathlib import Path

import pytest

from orchestrator.errors import StoredFormError
from orchestrator.specs.files import load_submission
from orchestrator.specs.group import GroupJob
from orchestrator.specs.stored_parts import CURVE_PARTS, GROUP_PARTS, CurveParts
from orchestrator.specs.train import TrainJob

JOBS = Path(__file__).resolve().parents[3] / "jobs"


@pytest.mark.parametrize("name", ["pipeline", "sweep"])
def test_the_children_of_a_stored_group_are_those_of_its_file(name: str) -> None:
    """A field that is renamed in the models alone would make `status` show steps without a kind."""
    group = load_submission(JOBS / f"{name}.yaml")
    assert isinstance(group, GroupJob)
    read = GROUP_PARTS.of(group.model_dump(mode="json")).children
    assert [
        (one.step, one.job_id, one.spec.kind, one.spec.name, one.settings, one.needs)
        for one in read
    ] == [
        (c.step, c.job_id, c.spec.kind, c.spec.name, c.settings, tuple(c.needs))
        for c in group.children
    ]


def test_what_a_training_asked_of_its_curve_is_read_from_its_spec() -> None:
    """Nobody would evaluate its checkpoints, or keep the best, under a name that changed."""
    asked = ("evaluation.metrics.every_steps=4", "training.num_steps=8", "tracking.experiment=e")
    more = ("checkpoints.every_steps=4", "checkpoints.keep_best=kid", "name=digits")
    job = load_submission(
        JOBS / "train.yaml", [*asked, *more, "tracking.registered_model=best-digits"]
    )
    assert isinstance(job, TrainJob)
    parts = CURVE_PARTS.of(job.model_dump(mode="json"))
    assert (parts.name, parts.every_steps, parts.training.num_steps) == ("digits", 4, 8)
    assert (parts.checkpoints.keep_best, parts.tracking.registered_model) == ("kid", "best-digits")


def test_a_job_without_a_curve_has_nothing_of_it() -> None:
    """Jobs of other kinds, and of versions before there was such a thing, are asked, too."""
    assert CURVE_PARTS.of({"kind": "prepare", "evaluation": {"num_images": 9}}) == CurveParts()
    with pytest.raises(StoredFormError, match="children of the group g cannot be read"):
        GROUP_PARTS.of({"kind": "pipeline"}, "g")
