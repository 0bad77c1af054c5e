"""Takes a job's images into the store when the job is submitted."""

import tempfile
from pathlib import Path

from orchestrator.dataset_sources import resolve_source
from orchestrator.datasets import ingest
from orchestrator.spec import Job, TrainJob
from orchestrator.storage import ObjectStore


def with_dataset(spec: Job, folder: Path, store: ObjectStore) -> Job:
    """Return the spec with its images in the store and pinned by their hash.

    Args:
        spec: What was asked.
        folder: Folder of the job file, which relative paths start from.
        store: Where the images go.

    Raises:
        DatasetError: The images cannot be used; the message names the file.
    """
    if not isinstance(spec, TrainJob):
        return spec
    source = resolve_source(spec.dataset.source, folder)
    cache = Path(tempfile.gettempdir()) / "ddpmctl-cache" / "datasets"
    ref = ingest(source, store, cache)
    spec.model.check_image_shape((ref.channels, ref.height, ref.width))
    dataset = spec.dataset.model_copy(update={"sha256": ref.sha256, "source": source})
    return spec.model_copy(update={"dataset": dataset})
