"""Looks at submit whether the model that a job draws from is there, and at the cluster for room."""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ddpm.config import ConfigError, SamplingConfig
from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.datasets.refs import describe
from orchestrator.artifacts.samples.labels import make_rule
from orchestrator.client.registered import checkpoint_now
from orchestrator.client.status import list_jobs, orchestrator_is_alive
from orchestrator.counts import counted
from orchestrator.errors import (
    BadInputError,
    DatasetError,
    JobNotFoundError,
    OrchestratorError,
    StoreError,
)
from orchestrator.jobs.lookup import exact_job_id
from orchestrator.jobs.queue import read_snapshot
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_spec
from orchestrator.specs.checks import Gives, Remark
from orchestrator.specs.extension import goes_on, obstacles
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import Output, leaves
from orchestrator.specs.model_fit import steps_fault
from orchestrator.specs.sections import ModelRef
from orchestrator.specs.train import TrainJob
from orchestrator.specs.yaml_nodes import Location
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_store

_JOB, _STEP, _CHECKPOINT = ("model", "job"), ("model", "step"), ("model", "checkpoint")
_REGISTERED = ("model", "registered")
_FIELD = "model"


@dataclass(frozen=True)
class _NamedModel:
    """The training that a reference means, and where in the file it is named."""

    store: ObjectStore
    job_id: str
    place: Location
    step: int | None


def remarks_on_init(store: ObjectStore, spec: Job, ref: ModelRef) -> Iterator[Remark]:
    """Yield what `remarks_on_model` does of the model that a training starts from.

    And why it cannot go on where that one ended, if it is to.
    """
    is_whole = isinstance(spec, TrainJob) and goes_on(spec)
    named = ref.model_copy(update={"weights": "ema"}) if is_whole else ref
    for remark in remarks_on_model(store, named, None):
        places = tuple(("init", *p[1:]) if p[0] == _FIELD else p for p in remark.places)
        message = re.sub(r"^model\b", "init", remark.message)
        yield replace(remark, places=places, message=message.replace("to draw from", "to take"))
    if isinstance(spec, TrainJob):
        yield from _on_going_on(store, spec, ref) if is_whole else _on_shapes(store, spec, ref)


def _on_shapes(store: ObjectStore, spec: TrainJob, ref: ModelRef) -> Iterator[Remark]:
    """Yield whether the images have another shape than those that the weights learned from."""
    old = training_of(store, ref)
    try:
        theirs = _shape(store, old) if isinstance(old, TrainJob) else None
        ours = _shape(store, spec)
    except (BadInputError, StoreError):  # its images are gone, or lie in another store
        return
    if theirs not in (None, ours):
        named = ref.job or ref.checkpoint or ref.registered
        message = f"{named} has images of (C, H, W) {theirs}, and this training "
        places: tuple[Location, ...] = (("init",), ("dataset", "source"))
        yield Remark(places, f"init: {message}{ours}: they must be equal")


def _shape(store: ObjectStore, spec: TrainJob) -> tuple[int, int, int]:
    images = describe(store, str(spec.dataset.sha256))
    return images.channels, images.height, images.width


def _on_going_on(store: ObjectStore, spec: TrainJob, ref: ModelRef) -> Iterator[Remark]:
    try:
        job_id = exact_job_id(store, str(ref.job))
        old = read_spec(RecordStore(store), job_id)
    except (JobNotFoundError, BadInputError):  # reported already
        return
    if isinstance(old, TrainJob):
        for place, obstacle in obstacles(old, spec, ref.step or old.training.num_steps):
            places = (("init", "job"), ("init", "weights"), place)
            yield Remark(places, f"init: cannot go on from {job_id}: {obstacle}")


def remarks_on_model(
    store: ObjectStore, ref: ModelRef, sampling: SamplingConfig | None
) -> Iterator[Remark]:
    """Yield what is wrong with a reference to a model, as far as the store tells now.

    Args:
        store: Where the jobs are.
        ref: What the file says; its form is right.
        sampling: How it is to draw; None where that does not matter.
    """
    named = None
    try:
        named = _find(store, ref)
        if named is None:
            return
        spec = read_spec(RecordStore(named.store), named.job_id)
        yield from _on_training(named, spec, ref.weights, sampling)
    except JobNotFoundError:
        if ref.job is not None:
            yield Remark((_JOB,), _no_such_job(store, ref.job))
        elif named is not None:  # a checkpoint needs no job beside it: it may have been copied
            yield from _on_bare_checkpoint(named)
    except BadInputError as error:
        yield Remark((_JOB, _CHECKPOINT, _REGISTERED), f"model: {error}")
    except StoreError as error:  # perhaps another store, which the cluster can reach
        message = f"model's checkpoint could not be looked at from here: {error}"
        yield Remark((_CHECKPOINT, _REGISTERED), message, is_fatal=False)


def training_of(store: ObjectStore, ref: ModelRef) -> Job | None:
    """Return the job that made a model; None where that is not known from here."""
    try:
        named = _find(store, ref)
        return read_spec(RecordStore(named.store), named.job_id) if named else None
    except (JobNotFoundError, BadInputError, StoreError):
        return None  # reported where the reference is looked at


def _find(store: ObjectStore, ref: ModelRef) -> _NamedModel | None:
    if ref.job is not None:
        return _NamedModel(store, exact_job_id(store, ref.job), _JOB, ref.step)
    uri = ref.checkpoint or (checkpoint_now(ref.registered) if ref.registered else "")
    prefix, _, rest = uri.rpartition("/jobs/")
    job_id, _, name = rest.partition("/checkpoints/step-")
    step = name.removesuffix(".json")
    if not (prefix and step.isdecimal()):  # a tag that somebody wrote: the orchestrator says so
        return None
    other = store if prefix == store.uri else open_store(prefix)
    place = _REGISTERED if ref.registered else _CHECKPOINT
    return _NamedModel(other, job_id, place, int(step))


def _on_bare_checkpoint(named: _NamedModel) -> Iterator[Remark]:
    uri = f"{named.store.uri}/{JobPaths(named.job_id).checkpoint(named.step or 0)}"
    steps = CheckpointStore(named.store, JobPaths(named.job_id)).steps()
    if named.step not in steps:
        there = ", ".join(map(str, steps)) or "none"
        message = (
            f"{'.'.join(map(str, named.place))}: there is no {uri}; steps that are there: {there}"
        )
        yield Remark((named.place,), message)


def _no_such_job(store: ObjectStore, name: str) -> str:
    jobs = list_jobs(store)
    names = sorted({job.name for job in jobs if leaves(job.kind, Output.CHECKPOINTS)})
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "submit the training first"
    return f"model.job: there is no job {name}; {hint}"


def _on_training(
    named: _NamedModel, spec: Job, weights: str, sampling: SamplingConfig | None
) -> Iterator[Remark]:
    record = RecordStore(named.store).read(named.job_id).record
    if not isinstance(spec, TrainJob):
        message = f"model.job: {named.job_id} is a {record.kind} job, not a training"
        yield Remark((named.place,), message)
        return
    known = ("ema", "model", *spec.training.further_averages)
    if weights not in known:
        message = f"model.weights: {named.job_id} has no {weights}; it has: {', '.join(known)}"
        yield Remark((named.place, ("model", "weights")), message)
    if sampling is not None:
        yield from _on_drawing(named, spec, sampling)
    yield from _on_checkpoints(named, spec, str(record.state), record.state.has_ended)


def _on_drawing(named: _NamedModel, spec: TrainJob, sampling: SamplingConfig) -> Iterator[Remark]:
    if fault := steps_fault(sampling, spec, named.job_id):
        yield Remark((named.place, ("sampling", "num_steps")), fault)
    try:
        num_classes, names = _classes_of(named.store, spec)
        make_rule(sampling, num_classes, names)
    except ConfigError as error:
        yield Remark((named.place, tuple(error.field.split("."))), f"{error}")
    except DatasetError:
        return  # its images are gone; the checkpoint still says what it knows


def _classes_of(store: ObjectStore, spec: TrainJob) -> tuple[int, tuple[str, ...]]:
    """Return the number of classes that a training's model knows, and their names."""
    if spec.model.num_classes == 0:
        return 0, ()
    if spec.dataset.sha256 is None:  # its images are still being prepared
        raise DatasetError(f"the images of job {spec.dataset.job} are not there yet")
    dataset = describe(store, spec.dataset.sha256)
    return spec.model.for_classes(dataset.num_classes).known_classes, dataset.class_names


def _on_checkpoints(
    named: _NamedModel, spec: TrainJob, state: str, has_ended: bool
) -> Iterator[Remark]:
    steps = CheckpointStore(named.store, JobPaths(named.job_id)).steps() if has_ended else []
    place = _STEP if named.place == _JOB else named.place
    total = spec.training.num_steps
    if not has_ended:
        if named.step is not None and named.step > total:
            message = f"model.step: job {named.job_id} ends at step {total}, before {named.step}"
            yield Remark((place,), message)
    elif not steps:
        message = f"job {named.job_id} is {state} and has no checkpoint to draw from"
        yield Remark((named.place,), f"model: {message}")
    elif named.step is not None and named.step not in steps:
        there = ", ".join(map(str, steps))
        message = f"job {named.job_id} has no checkpoint at step {named.step}; it has: {there}"
        yield Remark((place,), f"model: {message}")
    elif state != "SUCCEEDED" and named.step is None:
        message = f"job {named.job_id} is {state}; its newest checkpoint is of step {max(steps)}"
        yield Remark((named.place,), f"model: {message}", is_fatal=False)


def gpus_of_nodes(store: ObjectStore) -> list[float]:
    """Return the GPUs of each node, as a live orchestrator saw them last; [] where none tells."""
    try:
        return [n.gpus for n in read_snapshot(store).nodes] if orchestrator_is_alive(store) else []
    except OrchestratorError:
        return []


def remarks_on_room(nodes: Sequence[float], spec: Job, gives: Gives) -> Iterator[Remark]:
    """Yield whether the cluster, as it is, could ever hold a job's workers.

    Args:
        nodes: The GPUs of each node; none where nobody knows.
        spec: The job, which asks for a number of GPUs.
        gives: Tells whether a field was written.
    """
    asked = float(spec.resources.gpus_per_worker)
    room = sum(_workers_on(gpus, asked) for gpus in nodes)
    if not nodes or room >= spec.num_workers.min:
        return
    there = ", ".join(f"{gpus:g}" for gpus in sorted(set(nodes)))
    place: Location = ("resources", "gpus_per_worker")
    many: Location = ("resources", "num_workers")
    yield Remark(
        (place, many) if room and gives(many) else (many, place),
        f"never as the cluster is: {counted(spec.num_workers.min, 'worker')} with "
        f"{counted(asked, 'GPU')} each, and its nodes have {there} of them; the job waits until "
        "there are more",
        is_fatal=False,
    )


def _workers_on(gpus: float, asked: float) -> int:
    return int(gpus // asked) if asked >= 1 else int(gpus) * int(1 / asked)
