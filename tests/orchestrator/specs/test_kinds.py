"""The table of job kinds: a further kind is a row, a class and a driver, and nothing else."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from orchestrator.client.plan import plan_of
from orchestrator.client.submit import submit_job, submit_with_smoke
from orchestrator.errors import BadInputError
from orchestrator.jobs.submissions import read_submitted
from orchestrator.lifecycle.outcome import Outcome
from orchestrator.specs import kinds
from orchestrator.specs.files import load_submission
from orchestrator.specs.group import GroupJob, stored_submission
from orchestrator.specs.image_checks import ImagesSeen, remarks_on_images
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import (
    JOB_KINDS,
    Input,
    JobKind,
    Output,
    one_of,
    reads_model,
    stored_job,
)
from orchestrator.specs.resources import WorkerRange
from orchestrator.specs.sections import ModelRef
from tests.support.fakes import MemoryStore
from tests.support.models import model_of
from tests.support.world import World


class EchoJob(Job):
    """A kind of job that this version does not have."""

    kind: Literal["echo"]
    model: ModelRef
    times: int = 3

    @property
    def total(self) -> int:
        """Repetitions."""
        return self.times

    @property
    def num_workers(self) -> WorkerRange:
        """Just one."""
        return WorkerRange()

    @property
    def model_input(self) -> ModelRef:
        """What is repeated."""
        return self.model


ROW = JobKind(
    spec=EchoJob,
    driver="orchestrator.echo.driver",
    unit="times",
    noun="echo",
    inputs=frozenset({Input.MODEL}),
    output=None,
)
TRAIN = """
    kind: train
    dataset: {source: digits}
    training: {num_steps: 10}
"""


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the further row into the table."""
    monkeypatch.setitem(kinds.JOB_KINDS, "echo", ROW)


def echo_job(model: dict[str, Any] | None = None) -> EchoJob:
    """Return a small job of the further kind."""
    ref = ModelRef(**(model or {"checkpoint": "s3://b/p/jobs/t/checkpoints/1.json"}))
    return EchoJob(kind="echo", name="e", model=ref)


def write(folder: Path, text: str) -> Path:
    """Write a job file."""
    path = folder / "job.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", JOB_KINDS)
def test_rows_name_fields_of_their_specs(kind: str) -> None:
    """An input that is no field would be looked for in vain in every file."""
    row = JOB_KINDS[kind]
    assert {str(name) for name in row.inputs} <= row.spec.model_fields.keys()
    annotation: object = row.spec.model_fields["kind"].annotation
    assert annotation == Literal[kind]
    assert (row.spec.model_input is not Job.model_input) == reads_model(kind)
    assert (row.spec.dataset_input is not Job.dataset_input) == (Input.DATASET in row.inputs)


@pytest.mark.usefixtures("echo")
def test_a_further_kind_is_read_from_a_file_and_from_the_store(tmp_path: Path) -> None:
    """One row, and files, stored specs and messages know it."""
    path = write(tmp_path, "kind: echo\nname: e\nmodel: {job: t}\n")
    spec = load_submission(path)
    assert spec == echo_job({"job": "t"})
    assert stored_job(spec.model_dump(mode="json")) == spec
    with pytest.raises(BadInputError, match=r"kind must be .*, echo, pipeline or sweep"):
        load_submission(write(tmp_path, "kind: eco\n"))


@pytest.mark.usefixtures("echo")
def test_a_further_kind_is_a_step_that_takes_the_model_of_another(tmp_path: Path) -> None:
    """Pipelines ask the table what a step reads and what the other one leaves."""
    text = (
        f"kind: pipeline\nname: p\nsteps:\n  train: {{{_flow(TRAIN)}}}\n"
        "  say: {kind: echo, model: {step: train}}\n"
    )
    group = load_submission(write(tmp_path, text))
    assert isinstance(group, GroupJob)
    group = group.with_ids("p-20260101-000000-abcd")
    stored = stored_submission(group.model_dump(mode="json"))
    assert stored == group
    say = stored.children[1] if isinstance(stored, GroupJob) else None
    assert say is not None
    assert say.needs == ("train",)
    assert isinstance(say.spec, EchoJob)
    assert say.spec.model.job == "p-train-20260101-000000-abcd"
    with pytest.raises(BadInputError, match="say is no train step and leaves no model"):
        load_submission(
            write(tmp_path, text + "  more: {kind: echo, model: {step: say}, after: train}\n")
        )


@pytest.mark.usefixtures("echo")
def test_a_further_kind_is_planned_started_and_finished() -> None:
    """The orchestrator starts the driver of the row, quoted for the shell that Ray uses."""
    world = World()
    spec = echo_job()
    assert plan_of(spec, world.store).facts()["times"] == 3
    job_id = submit_job(world.store, spec).job_id
    current = world.records.read(job_id)
    world.records.write(current, replace(current.record, model=model_of("t")))
    world.controller = world.new_controller()
    world.step()
    started = world.cluster.started[f"{job_id}.1"]
    driver = ["python", "-m", "orchestrator.echo.driver", world.store.uri, job_id, "1"]
    assert shlex.split(started) == driver
    world.begin(job_id)
    world.step()
    world.end(job_id, Outcome(succeeded=True, progress=3))
    world.step(2)
    assert world.state(job_id) == "SUCCEEDED"
    assert world.record(job_id).attempts[-1].progress == 3


@pytest.mark.usefixtures("echo")
def test_a_further_kind_has_a_smoke_test() -> None:
    """What makes it small is its own; waiting for it is everybody's."""
    world = World()
    submitted = submit_with_smoke(world.store, echo_job())
    main = read_submitted(world.records, submitted.job_id)
    assert isinstance(main.spec, EchoJob)
    smoke = read_submitted(world.records, main.origin.waits_for_smoke)
    assert isinstance(smoke.spec, EchoJob)
    assert smoke.origin.smoke_of == submitted.job_id


def test_a_stored_kind_that_is_not_known_is_refused_in_one_line() -> None:
    """A newer version wrote it, perhaps as a step of a group."""
    with pytest.raises(BadInputError, match="this version knows no job of kind 'echo'"):
        stored_job({"kind": "echo"})
    group = {"kind": "pipeline", "name": "p", "children": [{"step": "s", "spec": {"kind": "echo"}}]}
    with pytest.raises(BadInputError, match="this version knows no job of kind 'echo'"):
        stored_submission(group)


def test_each_output_is_left_by_one_kind_at_least() -> None:
    """An output that nobody leaves is a word without a meaning."""
    assert {row.output for row in JOB_KINDS.values()} >= set(Output)


def test_choices_read_like_a_sentence() -> None:
    """One, two and more words."""
    assert [one_of(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a",
        "a or b",
        "a, b or c",
    ]


def _flow(text: str) -> str:
    return ", ".join(line.strip() for line in text.strip().splitlines())


# What works for one kind alone may say so: its rooms, and the verbs that are about what it made.
OF_ONE_KIND = (
    "artifacts/samples/",
    "client/results.py",
    "client/extend.py",
    "client/model_checks.py",
    "controller/committed.py",
    "evaluation/",
    "preparation/",
    "sampling/",
    "training/",
)
_ASKS_BY_CLASS = re.compile(
    rf"isinstance\([^)]*\b({'|'.join(r.spec.__name__ for r in JOB_KINDS.values())})\b"
)
_ASKS_BY_NAME = re.compile(rf"kind(?:\)|\]|\b)? *(?:==|!=|in) *[(\"']+(?:{'|'.join(JOB_KINDS)})\b")


def test_nothing_else_asks_for_a_kind_by_its_class_or_its_name() -> None:
    """A further kind is a row and a room; a chain somewhere else would be silent about it."""
    rooms = Path(kinds.__file__).parents[1]
    asking = {
        path.relative_to(rooms).as_posix()
        for path in rooms.rglob("*.py")
        if _ASKS_BY_CLASS.search(text := path.read_text("utf-8")) or _ASKS_BY_NAME.search(text)
    }
    others = {name for name in asking if not name.startswith(("specs/", *OF_ONE_KIND))}
    assert others == set()
    assert {name.split("/")[0] for name in asking} > {"training", "sampling", "evaluation"}


@pytest.mark.usefixtures("echo")
def test_a_further_kind_needs_no_form_of_its_own_for_labels_images_and_remarks() -> None:
    """Each of these has an answer for any kind, and its class may give another."""
    spec = echo_job()
    spec.check_images((1, 8, 8), 10)
    assert (spec.reads_labels, spec.needs_labels, spec.drawing) == (False, False, None)
    assert list(remarks_on_images(spec, ImagesSeen(10, (1, 8, 8)), lambda _: True)) == []
    assert plan_of(spec, MemoryStore()).facts()["times"] == 3
