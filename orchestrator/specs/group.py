"""What a group of jobs is: a pipeline's steps, or a sweep's runs, each a whole job of its own.

This is the form that is stored. All children stand in the one spec of their group, checked and
with their ids, so that submitting a group is putting one object. How people write groups, and how
they get them wrong, is in `group_files`.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, SerializeAsAny, StringConstraints

from orchestrator.counts import few
from orchestrator.errors import BadInputError
from orchestrator.lifecycle.state import GROUP_KINDS
from orchestrator.specs.document import Document
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import stored_job
from orchestrator.specs.located_errors import validated
from orchestrator.specs.sections import Closed, Name, NotifySpec
from orchestrator.store.names import part_id


class GroupTracking(Closed):
    """What goes to MLflow of a group.

    Attributes:
        experiment: MLflow experiment of the group's run and of its children's runs.
    """

    experiment: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "ddpmctl"


def _as_job(value: object) -> object:
    return stored_job(value) if isinstance(value, dict) else value


class Child(Closed):
    """One job of a group.

    Attributes:
        step: Its name within the group.
        job_id: The id that it gets; "" before the group has one.
        needs: Steps that must have succeeded before it is created.
        model_step: The one of them whose model it draws from.
        image_steps: Those whose images it reads, by the field that names them.
        settings: For a sweep: what this run has of its own, by key path.
        waits_for_smoke: The smoke test that must pass before it starts; "" for none.
        spec: The job itself. Until ids are given, `model.job` is that step's name.
    """

    step: Name
    job_id: str = ""
    needs: tuple[Name, ...] = ()
    model_step: Name | None = None
    image_steps: dict[Literal["of", "against", "dataset"], Name] = Field(default_factory=dict)
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    waits_for_smoke: str = ""
    spec: Annotated[SerializeAsAny[Job], BeforeValidator(_as_job)]


class GroupJob(Closed):
    """A pipeline or a sweep, as it is stored.

    Attributes:
        kind: Which of them.
        name: Its name.
        queue: What its children count against unless they say otherwise.
        priority: 0..100; theirs likewise.
        notify: Where the end of the group is posted.
        tracking: What goes to MLflow.
        max_concurrent: Children that may live at once; None for all.
        children: In the order of the file.
    """

    kind: Literal["pipeline", "sweep"]
    name: Name
    queue: Name = "default"
    priority: Annotated[int, Field(ge=0, le=100)] = 50
    notify: NotifySpec | None = None
    tracking: GroupTracking = Field(default_factory=GroupTracking)
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    children: tuple[Child, ...]

    @property
    def unit(self) -> str:
        """What its children are called."""
        return "steps" if self.kind == "pipeline" else "runs"

    def with_ids(self, group_id: str) -> Self:
        """Return the group with an id for each child, and models that name those ids."""
        ids = {child.step: child_id(group_id, self.name, child.step) for child in self.children}
        children = [_with_id(child, ids) for child in self.children]
        return self.model_copy(update={"children": tuple(children)})


def _with_id(child: Child, ids: dict[str, str]) -> Child:
    spec = child.spec
    if spec.model_input is not None and child.model_step is not None:
        model = spec.model_input.model_copy(update={"job": ids[child.model_step]})
        spec = spec.model_copy(update={spec.model_field: model})
    for field, step in child.image_steps.items():
        ref = getattr(spec, field).model_copy(update={"job": ids[step]})
        spec = spec.model_copy(update={field: ref})
    return child.model_copy(update={"job_id": ids[child.step], "spec": spec})


def child_name(group_name: str, step: str) -> str:
    """Return the name of a step's job."""
    return f"{group_name}-{step}"


def child_id(group_id: str, group_name: str, step: str) -> str:
    """Return the id of a step's job: the same for the same group, whoever asks."""
    return part_id(group_id, group_name, step)


def stored_submission(value: Mapping[str, object]) -> Job | GroupJob:
    """Return the job or group that a stored spec holds. Raises: BadInputError."""
    if value.get("kind") not in GROUP_KINDS:
        return stored_job(value)
    return validated(Document("spec.json", dict(value), {}), GroupJob)


def job_of(submission: Job | GroupJob, job_id: str) -> Job:
    """Return what was submitted if it is a job with processes of its own.

    Raises:
        BadInputError: It is a group; the message names its children.
    """
    if not isinstance(submission, GroupJob):
        return submission
    ids = [child.job_id for child in submission.children]
    raise BadInputError(
        f"{job_id} is a {submission.kind} and has no processes of its own; "
        f"ask for one of its jobs: {few(ids, 4)}"
    )
