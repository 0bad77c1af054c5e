"""Takes a job's images into the store when the job is submitted."""

import importlib
from collections.abc import Callable
from pathlib import Path

from ddpm.config import ConfigError
from orchestrator.artifacts.datasets.refs import DatasetRef, find_known, resolve_source
from orchestrator.cluster.cache import cache_folder
from orchestrator.errors import BadInputError, DatasetError
from orchestrator.specs.group import GroupJob
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import Input
from orchestrator.specs.sections import DatasetSpec, LabelFile
from orchestrator.store.objects import ObjectStore

# What does not change which images come out, or how they are read.
_NO_PIXELS = {"sha256", "holdout_fraction", "shuffle"}
_NOT_READING = _NO_PIXELS | {"skip_damaged"}


Progress = Callable[[int, int], None]


def _silent(line: str) -> None:
    pass


def _unseen(done: int, total: int) -> None:
    pass


def with_dataset(
    spec: Job,
    folder: Path,
    store: ObjectStore,
    known: dict[str, DatasetRef] | None = None,
    say: Callable[[str], None] = _silent,
    progress: Progress = _unseen,
) -> Job:
    """Return the spec with its images in the store and pinned by their hash.

    Args:
        spec: What was asked.
        folder: Folder of the job file, which relative paths start from.
        store: Where the images go.
        known: What was taken in already; what this call takes in is added.
        say: Told in one line what was taken in, and what was left out.
        progress: Told how many images are read, and of how many.

    Raises:
        DatasetError: The images cannot be used; the message names the file.
        ConfigError: The model cannot take them.
    """
    asked = spec.dataset_input
    if asked is None or asked.job is not None:
        return spec
    known = {} if known is None else known
    dataset = _resolved(spec, asked, folder)
    key = dataset.model_dump_json(exclude=_NO_PIXELS)
    if key not in known:
        known[key] = _find(dataset, store) or _take_in(
            dataset, store, spec.needs_labels, say, progress
        )
    ref = known[key]
    if asked.sha256 not in (None, ref.sha256):
        raise DatasetError(
            f"dataset.sha256: the file pins {asked.sha256}, but the images at {dataset.source} "
            f"have {ref.sha256}; bring those images back, or take the line out"
        )
    spec.check_images((ref.channels, ref.height, ref.width), ref.num_classes)
    pinned = asked.model_copy(update={"sha256": ref.sha256, "source": dataset.source})
    return spec.model_copy(update={Input.DATASET.value: pinned})


def _resolved(spec: Job, asked: DatasetSpec, folder: Path) -> DatasetSpec:
    """Return what to take in: paths that mean the same from anywhere, labels only if wanted."""
    source = resolve_source(asked.source, folder)
    labels = asked.labels
    if labels == "auto" and not spec.reads_labels:
        labels = "none"
    elif isinstance(labels, LabelFile):
        labels = LabelFile(file=resolve_source(labels.file, folder))
    return asked.model_copy(update={"source": source, "labels": labels})


def _find(dataset: DatasetSpec, store: ObjectStore) -> DatasetRef | None:
    """Return a set that is known without reading it: nothing that reads images is loaded."""
    plain = DatasetSpec(source=dataset.source, labels="none")
    same = dataset.model_dump(exclude=_NOT_READING) == plain.model_dump(exclude=_NOT_READING)
    found = find_known(dataset.source, store) if same else None
    return None if found is None or found.class_names else found


def _take_in(
    dataset: DatasetSpec,
    store: ObjectStore,
    needs_labels: bool,
    say: Callable[[str], None],
    progress: Progress,
) -> DatasetRef:
    # Loaded here: the libraries that read images take longer than all else that `submit` does.
    datasets = importlib.import_module("orchestrator.artifacts.datasets.ingest")
    ref: DatasetRef = datasets.ingest_as_asked(
        dataset,
        store,
        cache_folder("datasets"),
        say=say,
        needs_labels=needs_labels,
        progress=progress,
    )
    return ref


def with_datasets(
    group: GroupJob, folder: Path, store: ObjectStore, say: Callable[[str], None] = _silent
) -> GroupJob:
    """Return a group with the images of all its children in the store, equal sources once.

    Raises:
        BadInputError: Images of a child cannot be used; the message names the step.
    """
    known: dict[str, DatasetRef] = {}
    children = []
    for child in group.children:
        try:
            spec = with_dataset(child.spec, folder, store, known, say)
        except (ConfigError, DatasetError) as error:
            raise BadInputError(f"{child.step}: {error}") from error
        children.append(child.model_copy(update={"spec": spec}))
    return group.model_copy(update={"children": tuple(children)})
