"""Takes a job's images into the store when the job is submitted."""

import importlib
from pathlib import Path

from ddpm.config import ConfigError
from orchestrator.artifacts.datasets.refs import DatasetRef, find_known, resolve_source
from orchestrator.cluster.cache import cache_folder
from orchestrator.errors import BadInputError, DatasetError
from orchestrator.specs.group import GroupJob
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import Input
from orchestrator.store.objects import ObjectStore


def with_dataset(
    spec: Job, folder: Path, store: ObjectStore, known: dict[str, DatasetRef] | None = None
) -> Job:
    """Return the spec with its images in the store and pinned by their hash.

    Args:
        spec: What was asked.
        folder: Folder of the job file, which relative paths start from.
        store: Where the images go.
        known: Sources that were taken in already; what this call takes in is added.

    Raises:
        DatasetError: The images cannot be used; the message names the file.
        ConfigError: The model cannot take them.
    """
    asked = spec.dataset_input
    if asked is None:
        return spec
    known = {} if known is None else known
    source = resolve_source(asked.source, folder)
    if source not in known:
        known[source] = find_known(source, store) or _take_in(source, store)
    ref = known[source]
    if asked.sha256 not in (None, ref.sha256):
        raise DatasetError(
            f"dataset.sha256: the file pins {asked.sha256}, but the images at {source} have "
            f"{ref.sha256}; bring those images back, or take the line out"
        )
    spec.check_images((ref.channels, ref.height, ref.width))
    dataset = asked.model_copy(update={"sha256": ref.sha256, "source": source})
    return spec.model_copy(update={Input.DATASET.value: dataset})


def _take_in(source: str, store: ObjectStore) -> DatasetRef:
    # Loaded here: the libraries that read images take longer than all else that `submit` does.
    datasets = importlib.import_module("orchestrator.artifacts.datasets.ingest")
    ref: DatasetRef = datasets.ingest(source, store, cache_folder("datasets"))
    return ref


def with_datasets(group: GroupJob, folder: Path, store: ObjectStore) -> GroupJob:
    """Return a group with the images of all its children in the store, equal sources once.

    Raises:
        BadInputError: Images of a child cannot be used; the message names the step.
    """
    known: dict[str, DatasetRef] = {}
    children = []
    for child in group.children:
        try:
            spec = with_dataset(child.spec, folder, store, known)
        except (ConfigError, DatasetError) as error:
            raise BadInputError(f"{child.step}: {error}") from error
        children.append(child.model_copy(update={"spec": spec}))
    return group.model_copy(update={"children": tuple(children)})
