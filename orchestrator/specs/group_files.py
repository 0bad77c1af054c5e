"""Pipelines and sweeps as files hold them, and the whole list of checked jobs that each becomes.

Nothing is left for later: every step and every combination is a job that was checked as if it had
been submitted alone, and a mistake names the line of the file, also within a step.
"""

import difflib
import graphlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from orchestrator.errors import BadInputError
from orchestrator.lifecycle.retry import RetryPolicy
from orchestrator.specs.document import Document
from orchestrator.specs.group import Child, GroupJob, GroupTracking, child_name
from orchestrator.specs.kinds import Input, Output, checked_job, leaves, reads
from orchestrator.specs.located_errors import FieldsError
from orchestrator.specs.matrix import runs
from orchestrator.specs.model_fit import fitted
from orchestrator.specs.sections import Closed, Name, NotifySpec, Retry
from orchestrator.specs.yaml_nodes import Location
from orchestrator.store.names import MAX_NAME_LENGTH

MAX_STEPS = 128
_INHERITED = ("queue", "priority", "preemptible", "retry")
_RUN = "{:03d}"

_Mapping = dict[str, Any]
_ImageField = Literal["of", "against", "dataset"]


class _GroupFile(Closed):
    """What the files of both kinds have; the children are checked one by one, as jobs.

    Attributes:
        kind: What kind of group it is.
        name: What it is called; its jobs are called <name>-<step> or <name>-<number>.
        queue: Whose quota its jobs count against, unless they say otherwise.
        priority: Theirs, likewise.
        preemptible: Whether they may have to make room, likewise.
        retry: What of them is tried again, likewise.
        notify: Where the end of the group is posted.
        max_concurrent: Jobs that may be queued or at work at once; none is all.
    """

    name: Name
    queue: Name = "default"
    priority: Annotated[int, Field(ge=0, le=100)] = 50
    preemptible: bool = True
    retry: Retry = RetryPolicy()
    notify: NotifySpec | None = None
    tracking: GroupTracking = Field(default_factory=GroupTracking)
    max_concurrent: Annotated[int, Field(ge=1)] | None = None


class PipelineFile(_GroupFile):
    """Steps that name each other.

    Attributes:
        steps: A whole job without `name` for each step, 128 at most. `model: {step: NAME}` draws
            from another step's model, `init` starts from it, `dataset: {step: NAME}` reads what
            another step prepared, and all wait for it; `after: [NAME]` waits alone.
    """

    kind: Literal["pipeline"]
    steps: Annotated[dict[Name, _Mapping], Field(min_length=1, max_length=MAX_STEPS)]


class SweepFile(_GroupFile):
    """One job under each combination of settings.

    Attributes:
        matrix: A list of values for each field that is varied, as `training.seed: [0, 1]`; 256
            combinations at most.
        job: The job that is varied, without `name`.
    """

    kind: Literal["sweep"]
    matrix: Annotated[_Mapping, Field(min_length=1)]
    job: _Mapping


def _group(file: PipelineFile | SweepFile, children: Iterable[Child]) -> GroupJob:
    return GroupJob(
        kind=file.kind,
        name=file.name,
        queue=file.queue,
        priority=file.priority,
        notify=file.notify,
        tracking=file.tracking,
        max_concurrent=file.max_concurrent,
        children=tuple(children),
    )


def _inherit(document: Document, file: PipelineFile | SweepFile, step: str) -> None:
    """Give a child's document its name, and what its group says for all."""
    value = document.value
    if "name" in value:
        raise document.fault(("name",), "a job of a group takes its name from the group; remove it")
    value["name"] = child_name(file.name, step)
    given = file.model_dump(mode="json", include=set(_INHERITED) & file.model_fields_set)
    document.value.update({**given, **value})
    tracking = value.setdefault("tracking", {})
    if isinstance(tracking, dict):
        tracking.setdefault("experiment", file.tracking.experiment)
        if leaves(value.get("kind"), Output.CHECKPOINTS):
            tracking.setdefault("registered_model", file.name)


def unfold_pipeline(document: Document, file: PipelineFile) -> tuple[GroupJob, dict[str, Document]]:
    """Return a pipeline's jobs, each checked, and their documents. Raises: BadInputError."""
    return _Pipeline(document, file).unfolded()


class _Pipeline:
    """A pipeline's steps on their way to jobs.

    Args:
        document: The file.
        file: What it holds beside the steps' own fields.
    """

    def __init__(self, document: Document, file: PipelineFile) -> None:
        self._document = document
        self._file = file
        self._steps = {step: document.part(("steps", step)) for step in file.steps}

    def unfolded(self) -> tuple[GroupJob, dict[str, Document]]:
        """Return the checked pipeline and its steps' documents. Raises: BadInputError."""
        children = {step: self._child(step) for step in self._steps}
        self._check_order(children)
        children = {step: self._fitted(child, children) for step, child in children.items()}
        return _group(self._file, children.values()), self._steps

    def _child(self, step: str) -> Child:
        document = self._steps[step]
        self._check_name(step)
        after = self._after(step, document)
        model_step = self._model_step(step, document)
        image_steps = self._image_steps(step, document)
        _inherit(document, self._file, step)
        steps = [*([model_step] if model_step else []), *image_steps.values()]
        spec = checked_job(document)
        return Child(
            step=step,
            needs=tuple(dict.fromkeys([*steps, *after])),
            model_step=model_step,
            image_steps=image_steps,
            spec=spec,
        )

    def _check_name(self, step: str) -> None:
        name = child_name(self._file.name, step)
        if len(name) > MAX_NAME_LENGTH:
            message = f"step {step}: its job's name {name} has {len(name)} characters; "
            raise self._document.fault(("steps", step), f"{message}{MAX_NAME_LENGTH} at most")
        is_typed = ("steps", step) in self._document.overrides
        if is_typed and ("steps", step) not in self._document.lines:
            raise self._document.fault(("steps", step), self._unknown(step))

    def _after(self, step: str, document: Document) -> list[str]:
        value = document.value.pop("after", [])
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list):
            raise document.fault(("after",), f"after: a step or a list of steps, not {value!r}")
        for index, name in enumerate(names):
            place = ("after", index) if isinstance(value, list) else ("after",)
            self._check_known(step, name, document, place)
        return names

    def _model_step(self, step: str, document: Document) -> str | None:
        """Take `model: {step: NAME}`, or `init`, for what it means here; return the name."""
        field = Input.MODEL if reads(document.value.get("kind"), Input.MODEL) else Input.INIT
        model = document.value.get(field.value)
        if not reads(document.value.get("kind"), field) or not isinstance(model, dict):
            return None
        name, place = model.get("step"), (field.value, "step")
        if not isinstance(name, str):
            return None
        self._check_known(step, name, document, place)
        if not leaves(self._steps[name].value.get("kind"), Output.CHECKPOINTS):
            raise document.fault(
                place, f"{field}.step: {name} is no train step and leaves no model"
            )
        del model["step"]
        if "job" in model:
            raise document.fault(place, f"{field}: give step {name} or a job, not both")
        model["job"] = name
        return name

    def _image_steps(self, step: str, document: Document) -> dict[_ImageField, str]:
        """Take `of: {step: NAME}`, `against` and `dataset` for what they mean; return the names."""
        kind, found = document.value.get("kind"), dict[_ImageField, str]()
        fields: tuple[_ImageField, ...] = ("of", "against", "dataset")
        for field in fields:
            ref = document.value.get(field)
            if not reads(kind, Input(field)) or not isinstance(ref, dict) or "step" not in ref:
                continue
            name, place = ref.pop("step"), (field, "step")
            self._check_known(step, name, document, place)
            other = self._steps[name].value.get("kind")
            wanted = Output.DATASET if field == "dataset" else Output.SAMPLES
            is_fit = leaves(other, wanted) or (field == "against" and reads(other, Input.DATASET))
            if not is_fit:
                message = "prepares no data set" if field == "dataset" else "leaves no images"
                raise document.fault(place, f"{field}.step: {name} {message}")
            if "source" in ref:
                raise document.fault(place, f"{field}: give step {name} or a source, not both")
            if "job" in ref:
                raise document.fault(place, f"{field}: give step {name} or a job, not both")
            ref["job"] = found[field] = name
        return found

    def _check_known(self, step: str, name: object, document: Document, place: Location) -> None:
        if name == step:
            raise document.fault(place, f"step {step} cannot need itself")
        if not isinstance(name, str) or name not in self._steps:
            raise document.fault(place, self._unknown(str(name)))

    def _unknown(self, name: str) -> str:
        known = [step for step in self._steps if ("steps", step) in self._document.lines]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"no step is called {name}; {hint}"

    def _check_order(self, children: Mapping[str, Child]) -> None:
        sorter = graphlib.TopologicalSorter({c.step: c.needs for c in children.values()})
        try:
            sorter.prepare()
        except graphlib.CycleError as error:
            circle = list(reversed(error.args[1]))
            message = f"steps wait for each other in a circle: {' after '.join(circle)}"
            raise self._document.fault(("steps", circle[0]), message) from error

    def _fitted(self, child: Child, children: Mapping[str, Child]) -> Child:
        """Return a step as it is with the model of the one that it draws from."""
        trained = children[child.model_step].spec if child.model_step else None
        document = self._steps[child.step]
        try:
            return child.model_copy(
                update={
                    "spec": fitted(child.spec, trained, f"step {child.model_step}", document.gives)
                }
            )
        except FieldsError as error:
            written = [place for place in error.places if document.gives(place)]
            raise document.fault((written or error.places)[-1], str(error)) from error


def unfold_sweep(document: Document, file: SweepFile) -> tuple[GroupJob, dict[str, Document]]:
    """Return a sweep's jobs, each checked, and their documents. Raises: BadInputError."""
    longest = MAX_NAME_LENGTH - len(child_name("", _RUN.format(1)))
    if len(file.name) > longest:
        message = f"name: a sweep's has {longest} characters at most, not {len(file.name)}"
        raise document.fault(("name",), message)
    children, parts = [], {}
    for number, (settings, job) in enumerate(runs(document), 1):
        step = _RUN.format(number)
        children.append(_run(file, step, settings, job))
        parts[step] = job
    return _group(file, children), parts


def _run(file: SweepFile, step: str, settings: dict[str, JsonValue], job: Document) -> Child:
    try:
        _inherit(job, file, step)
        return Child(step=step, settings=settings, spec=checked_job(job))
    except BadInputError as error:
        raise BadInputError(f"{error}{run_in_words(step, settings)}") from error


def run_in_words(step: str, settings: Mapping[str, object]) -> str:
    """Return which run of a sweep it is, behind a message; "" of a pipeline's step."""
    text = ", ".join(f"{key}={value}" for key, value in settings.items())
    return f" (run {step}: {text})" if text else ""
