"""Makes a checked job file ready to be queued: its images in the store, and all that can be known.

Every mistake names the line of the file, also in a step of a pipeline or a run of a sweep.
"""

import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from ddpm.config import OWN_NETWORK, ConfigError, SamplingConfig
from orchestrator.artifacts.datasets.fit import images_seen
from orchestrator.artifacts.datasets.refs import DatasetRef, describe, resolve_source
from orchestrator.client.datasets import Progress, with_dataset
from orchestrator.client.distant_sources import (
    remarks_on_preparation,
    remarks_on_source,
    with_source,
)
from orchestrator.client.foreign_models import with_foreign_model
from orchestrator.client.model_checks import (
    gpus_of_nodes,
    remarks_on_init,
    remarks_on_model,
    remarks_on_room,
    training_of,
)
from orchestrator.client.own_networks import MODEL, check_own_network, with_own_network
from orchestrator.errors import BadInputError, DatasetError, StoreError
from orchestrator.specs.checks import Gives, Remark
from orchestrator.specs.files import JobFile
from orchestrator.specs.group import GroupJob
from orchestrator.specs.image_checks import ImagesSeen, remarks_on_images
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import Input, reads
from orchestrator.specs.located_errors import FieldsError
from orchestrator.specs.model_fit import fitted
from orchestrator.specs.prepare import source_of
from orchestrator.specs.sections import DatasetSpec, LabelFile, ModelRef
from orchestrator.specs.variables import BARE
from orchestrator.specs.yaml_nodes import Location
from orchestrator.store.objects import ObjectStore

_SOURCE = (("dataset", "source"),)
_NAMED_FIELD = re.compile(r"^dataset\.(\w+)")  # of messages that begin with the field they blame


def _silent(line: str) -> None:
    pass


def _unseen(done: int, total: int) -> None:
    pass


def check_sources(file: JobFile, folder: Path) -> None:
    """Make sure that every data set of a job file is known or there, before anything is started.

    Args:
        file: The job file.
        folder: What relative paths start from.

    Raises:
        BadInputError: One line that names file and line.
    """
    for step, job in file.jobs():
        own = source_of(job)
        images = job.dataset_input or own
        if images is None or (job.dataset_input is not None and job.dataset_input.job is not None):
            continue
        try:
            if own is not None:
                with_source(job, folder)
                continue
            resolve_source(images.source, folder)
            if isinstance(images.labels, LabelFile):
                resolve_source(images.labels.file, folder)
        except DatasetError as error:
            raise file.fault(step, _SOURCE, f"{error}{_bare(images.source)}") from error


def _bare(source: str) -> str:
    found = BARE.search(source)
    return f"; ${found[1]} is not filled in: write ${{{found[1]}}}" if found else ""


def prepared(
    file: JobFile,
    folder: Path,
    store: ObjectStore,
    say: Callable[[str], None] = _silent,
    coming: Mapping[str, Job] = MappingProxyType({}),
    progress: Progress = _unseen,
) -> JobFile:
    """Return a job file whose images are in the store, pinned by their hash; equal sources once.

    Args:
        file: The job file.
        folder: What relative paths start from.
        store: Where the images go, and the jobs are.
        say: Told what was taken in, and what was left out.
        coming: Jobs by name that are queued before it, and are not there yet.
        progress: Told how many images of a source are read, and of how many.

    Raises:
        BadInputError: A job cannot work; the message names file and line.
    """
    known: dict[str, DatasetRef] = {}
    jobs = {}
    for step, job in file.jobs():
        taken = _with_model(file, step, _with_network(file, step, job), folder, store, say)
        taken = _fitted(file, step, taken, store, coming)
        taken = with_source(taken, folder)
        pinned = functools.partial(with_dataset, taken, folder, store, known, say, progress)
        jobs[step] = _with_images(file, step, job, pinned)
    return _Looks(store, file, coming).at(replace(file, spec=_with_jobs(file.spec, jobs)))


def _with_images(file: JobFile, step: str, job: Job, pinned: Callable[[], Job]) -> Job:
    """Return a job with its images; what is wrong with them is reported with its line."""
    try:
        return pinned()
    except ConfigError as error:
        multipliers, classes = ("model", "channel_multipliers"), ("model", "num_classes")
        places = (*_SOURCE, classes if error.field == "num_classes" else multipliers)
        message = f"model.{error}" if error.field == "num_classes" else str(error)
        raise file.fault(step, places, message) from error
    except DatasetError as error:
        named = _NAMED_FIELD.search(str(error))
        place = named[1] if named else "source"
        raise file.fault(step, (*_SOURCE, ("dataset", place)), str(error)) from error
    except StoreError as error:
        if job.dataset_input is not None and job.dataset_input.source.startswith("s3://"):
            raise file.fault(step, _SOURCE, str(error)) from error
        raise


def _with_network(file: JobFile, step: str, job: Job) -> Job:
    """Return a job with all settings of its network; its faults are reported with their line."""
    try:
        return with_own_network(job, file.parts[step])
    except ConfigError as error:
        raise file.fault(step, _network_places(error), f"model.{error}") from error


def _network_places(error: ConfigError) -> tuple[Location, ...]:
    return ((MODEL,), (MODEL, OWN_NETWORK), (MODEL, error.field))


def _with_model(
    file: JobFile,
    step: str,
    job: Job,
    folder: Path,
    store: ObjectStore,
    say: Callable[[str], None],
) -> Job:
    """Return a job with its model, where that is a folder; faults are reported with their line."""
    try:
        return with_foreign_model(job, folder, store, say)
    except BadInputError as error:
        place = (job.model_field, "diffusers")
        raise file.fault(step, (place,), f"{'.'.join(place)}: {error}") from error


def _fitted(
    file: JobFile, step: str, job: Job, store: ObjectStore, coming: Mapping[str, Job]
) -> Job:
    """Return a job as it is with its model, as far as the training is known by now."""
    ref = job.model_input
    if ref is None:
        return job
    if _means_later(file, step, ref):
        return job
    source = coming.get(str(ref.job)) or training_of(store, ref)
    named = str(ref.job or ref.checkpoint or ref.registered)
    # A name in the registry may mean another model tomorrow, so nothing is filled in by it.
    gives = file.parts[step].gives if ref.registered is None else _given
    try:
        return fitted(job, source, named, gives)
    except FieldsError as error:
        raise file.fault(step, error.places, str(error)) from error


def _means_later(file: JobFile, step: str, ref: ModelRef) -> bool:
    """Tell whether a name in the registry is read after other steps, which may register it."""
    children = file.spec.children if isinstance(file.spec, GroupJob) else ()
    return ref.registered is not None and any(c.step == step and c.needs for c in children)


def _given(*_: object) -> bool:
    return True


def _with_jobs(spec: Job | GroupJob, jobs: dict[str, Job]) -> Job | GroupJob:
    if not isinstance(spec, GroupJob):
        return jobs[""]
    children = [c.model_copy(update={"spec": jobs[c.step]}) for c in spec.children]
    return spec.model_copy(update={"children": tuple(children)})


def _on_network(job: Job, seen: ImagesSeen) -> Iterator[Remark]:
    try:
        check_own_network(job, seen.shape, seen.num_classes)
    except ConfigError as error:
        yield Remark(_network_places(error), f"model.{error}")


class _Looks:
    """Looks at each job of a file; what many jobs share is looked at once."""

    def __init__(self, store: ObjectStore, file: JobFile, coming: Collection[str]) -> None:
        self._coming = coming
        self._store = store
        self._file = file
        self._images: dict[str, ImagesSeen] = {}
        self._models: dict[tuple[ModelRef, str], list[Remark]] = {}
        self._of_steps: frozenset[str] = frozenset()
        self._read_steps: frozenset[str] = frozenset()
        if isinstance(file.spec, GroupJob):
            self._of_steps = frozenset(c.step for c in file.spec.children if c.model_step)
            readers = (c.step for c in file.spec.children if Input.DATASET in c.image_steps)
            self._read_steps = frozenset(readers)

    def at(self, file: JobFile) -> JobFile:
        """Return the file with what is odd. Raises: BadInputError."""
        return file.checked(self._look)

    def _look(self, step: str, job: Job, gives: Gives) -> Iterator[Remark]:
        images = job.dataset_input
        source = source_of(job)
        if source is not None:
            yield from remarks_on_source(source)
        if images is not None:
            yield from self._on_dataset(step, job, images, gives)
        ref = job.model_input
        is_known = ref is not None and not _means_later(self._file, step, ref)
        if ref and is_known and ref.job not in self._coming and step not in self._of_steps:
            if reads(job.kind, Input.INIT):
                yield from remarks_on_init(self._store, job, ref)
            else:
                yield from self._on_model(ref, job.drawing)
        if job.resources.gpus_per_worker not in ("auto", 0):
            yield from remarks_on_room(self._gpus, job, gives)

    def _on_dataset(
        self, step: str, job: Job, images: DatasetSpec, gives: Gives
    ) -> Iterator[Remark]:
        if images.job is not None:
            if images.job not in self._coming and step not in self._read_steps:
                yield from remarks_on_preparation(self._store, job, images.job)
            return
        seen = self._seen(str(images.sha256))
        yield from remarks_on_images(job, seen, gives)
        yield from _on_network(job, seen)

    @functools.cached_property
    def _gpus(self) -> list[float]:
        return gpus_of_nodes(self._store)

    def _seen(self, sha256: str) -> ImagesSeen:
        if sha256 not in self._images:
            self._images[sha256] = images_seen(describe(self._store, sha256))
        return self._images[sha256]

    def _on_model(self, ref: ModelRef, sampling: SamplingConfig | None) -> Iterable[Remark]:
        key = (ref, repr(sampling))
        if key not in self._models:
            self._models[key] = list(remarks_on_model(self._store, ref, sampling))
        return self._models[key]
