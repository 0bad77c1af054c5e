"""What goes to MLflow of where a set comes from: model, checkpoint, code and data."""

from contextlib import suppress
from pathlib import Path

from orchestrator.cluster.code_version import code_version, git_commit
from orchestrator.errors import BadInputError, JobNotFoundError
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_spec
from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.specs.sections import DatasetSpec
from orchestrator.store.objects import ObjectStore
from orchestrator.tracking import tags
from orchestrator.tracking.writer import MetricWriter


def tell_origin(store: ObjectStore, model: ResolvedModel, metrics: MetricWriter) -> None:
    """Log which checkpoint of which training draws, by which code, and what that one learned from.

    Args:
        store: Where the sample job is.
        model: What was resolved for it, as its record has it.
        metrics: Takes the tags and the data set.
    """
    commit = git_commit()
    metrics.log_tags(
        {
            tags.MODEL: f"step {model.step} of {model.job_id}, {model.weights}",
            tags.COMMIT: f"{model.store_uri or store.uri}/{model.commit_key}",
            tags.COMMIT_SHA256: model.commit_sha256,
            tags.CODE_SHA256: code_version(),
            **({"mlflow.source.git.commit": commit} if commit else {}),
        }
    )
    dataset = _learned_from(store, model)
    if dataset is not None and dataset.sha256:
        name = Path(dataset.source).name or "dataset"
        metrics.log_dataset(name, digest=dataset.sha256, source=dataset.source, context="training")


def _learned_from(store: ObjectStore, model: ResolvedModel) -> DatasetSpec | None:
    """Return the images of the training; None where it is gone, or in another store."""
    if model.store_uri:
        return None
    with suppress(JobNotFoundError, BadInputError):
        return read_spec(RecordStore(store), model.job_id).dataset_input
    return None
