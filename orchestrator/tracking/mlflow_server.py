"""The MLflow server, by explicit run ids only; whatever goes wrong there is a TrackingError."""

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.errors import TrackingError
from orchestrator.tracking import tags
from orchestrator.tracking.image_grid import grid_files
from orchestrator.tracking.lines import DatasetLine, ImageLine, ModelLine
from orchestrator.tracking.registry import shown_uri, without_secrets
from orchestrator.tracking.server import LineRefusedError, MetricValue, RunMissingError

# What MLflow takes at most in one value.
_LONGEST_NAME = 250
_LONGEST_PARAM = 6000
_LONGEST_TAG = 8000
_LONGEST_DIGEST = 36


# By these MLflow's page opens an experiment on its runs instead of on traces of language models.
KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}


class MlflowServer:
    """A `TrackingServer` that is MLflow.

    Args:
        uri: Its address, for messages.
        client: An `mlflow.MlflowClient`.
        entities: The module `mlflow.entities`.
        errors: What the client raises when the server, or its artifact store, fails.
    """

    def __init__(
        self, uri: str, client: Any, entities: Any, errors: tuple[type[Exception], ...]
    ) -> None:
        self._uri, self._shown_uri = uri, shown_uri(uri)
        self._client = client
        self._entities = entities
        self._errors = errors

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, made if absent."""
        with self._translated():
            experiment = self._client.get_experiment_by_name(name)
            if experiment is None:
                kind = {KIND_TAG: KIND}
                return str(self._client.create_experiment(name, tags=kind))
            if experiment.lifecycle_stage == "deleted":
                raise TrackingError(
                    f"experiment {name!r} was deleted in MLflow: restore it there with "
                    f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`"
                )
            if KIND_TAG not in experiment.tags:
                self._client.set_experiment_tag(experiment.experiment_id, KIND_TAG, KIND)
        return str(experiment.experiment_id)

    def find_run(self, experiment_id: str, job_id: str) -> str | None:
        """Return the id of the oldest run of a job, or None."""
        with self._translated():
            runs = self._client.search_runs(
                [experiment_id],
                filter_string=f"tags.`{tags.JOB}` = '{job_id}'",
                max_results=1,
                order_by=["attributes.start_time ASC"],
            )
        return str(runs[0].info.run_id) if runs else None

    def create_run(self, experiment_id: str, job_id: str, start_ms: int) -> str:
        """Make the run of a job and return its id."""
        with self._translated():
            run = self._client.create_run(
                experiment_id, start_time=start_ms, tags={tags.JOB: job_id}, run_name=job_id
            )
        return str(run.info.run_id)

    def delete_run(self, run_id: str) -> None:
        """Remove a run."""
        with self._translated():
            self._client.delete_run(run_id)

    def is_active(self, run_id: str) -> bool:
        """Tell whether a run takes values: false once somebody has deleted it in MLflow.

        Raises:
            RunMissingError: MLflow does not know it.
        """
        with self._translated(missing=RunMissingError):
            run = self._client.get_run(run_id)
        return str(run.info.lifecycle_stage) == "active"

    def set_status(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        """Set a run's status, and its end where there is one."""
        with self._translated():
            if end_ms is None:
                self._client.update_run(run_id, status=status)
            else:
                self._client.set_terminated(run_id, status=status, end_time=end_ms)

    def log_metrics(self, run_id: str, values: Sequence[MetricValue]) -> None:
        """Add at most `METRICS_PER_CALL` values; one that is there already stays one."""
        metrics = [self._entities.Metric(_name(v.name), v.value, v.at_ms, v.step) for v in values]
        with self._translated():
            self._client.log_batch(run_id, metrics=metrics, synchronous=True)

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Add at most `NAMES_PER_CALL` params; MLflow refuses another value for a known name."""
        entries = [self._entities.Param(_name(k), v[:_LONGEST_PARAM]) for k, v in params.items()]
        with self._translated():
            self._client.log_batch(run_id, params=entries, synchronous=True)

    def log_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set at most `NAMES_PER_CALL` tags."""
        entries = [self._entities.RunTag(_name(k), v[:_LONGEST_TAG]) for k, v in tags.items()]
        with self._translated():
            self._client.log_batch(run_id, tags=entries, synchronous=True)

    def log_image(self, run_id: str, line: ImageLine, png: bytes) -> None:
        """Put an image among the run's artifacts, and into its grid of images by step."""
        files = {line.path: png, **grid_files(line, png)}
        with tempfile.TemporaryDirectory(prefix="ddpmctl-image-") as local, self._translated():
            for path, body in files.items():
                folder, _, name = path.rpartition("/")
                file = Path(local) / name
                file.write_bytes(body)
                self._client.log_artifact(run_id, str(file), folder or None)
            self._client.set_tag(run_id, "mlflow.loggedImages", "True")

    def log_dataset(self, run_id: str, line: DatasetLine) -> None:
        """Note a data set as an input of the run."""
        dataset = self._entities.Dataset(
            name=line.name,
            digest=line.digest[:_LONGEST_DIGEST],
            source_type="s3" if line.source.startswith("s3:") else "local",
            source=json.dumps({"uri": line.source}),
            profile=json.dumps({"sha256": line.digest, **line.profile}),
        )
        context = self._entities.InputTag("mlflow.data.context", line.context)
        with self._translated():
            self._client.log_inputs(
                run_id, datasets=[self._entities.DatasetInput(dataset, tags=[context])]
            )

    def register_model(self, run_id: str, job_id: str, line: ModelLine) -> None:
        """Register a model, unless the job has registered that step already."""
        with self._translated():
            self._ensure_model(line.name)
            if self._version_of(job_id, line) is not None:
                return
            self._client.create_model_version(
                line.name,
                source=line.source,
                run_id=run_id,
                tags={**line.tags, **_marks(job_id, line), tags.SHA256: line.sha256},
                await_creation_for=0,
            )

    def set_alias(self, job_id: str, line: ModelLine, alias: str) -> None:
        """Have an alias of a model point at the version that `register_model` made."""
        with self._translated():
            version = self._version_of(job_id, line)
            if version is not None:
                self._client.set_registered_model_alias(line.name, alias, version)

    def _version_of(self, job_id: str, line: ModelLine) -> str | None:
        marks = _marks(job_id, line).items()
        for version in self._client.search_model_versions(f"name = '{line.name}'"):
            if marks <= dict(version.tags).items():
                return str(version.version)
        return None

    def _ensure_model(self, name: str) -> None:
        if not self._client.search_registered_models(f"name = '{name}'", max_results=1):
            self._client.create_registered_model(name)

    @contextmanager
    def _translated(self, missing: type[TrackingError] = TrackingError) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            message = without_secrets(str(error), self._uri)
            text = " ".join(message.split()).partition(" (Caused by")[0][:250]
            code = getattr(error, "error_code", "")
            if code == "RESOURCE_DOES_NOT_EXIST":
                raise missing(f"MLflow at {self._shown_uri} does not know it: {text}") from error
            if code in _REFUSALS:
                raise LineRefusedError(f"MLflow at {self._shown_uri} refuses: {text}") from error
            raise TrackingError(
                f"MLflow at {self._shown_uri} does not answer ({text}); "
                "check MLFLOW_TRACKING_URI, or run `ddpmctl up`"
            ) from error


def _marks(job_id: str, line: ModelLine) -> dict[str, str]:
    """Return the tags that identify a version."""
    return {tags.JOB: job_id, tags.TRAINING_STEP: str(line.step)}


def _name(name: str) -> str:
    """Return a name as MLflow takes it: some characters only, no empty or dotted path parts."""
    parts = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII).split("/")
    return "/".join(part for part in parts if part.strip("."))[:_LONGEST_NAME] or "_"


def open_mlflow(uri: str) -> MlflowServer:
    """Return the server at an address; nothing is asked of it yet.

    Time-outs and retries are MLflow's own variables: MLFLOW_HTTP_REQUEST_TIMEOUT and
    MLFLOW_HTTP_REQUEST_MAX_RETRIES; few of both let an outage be seen quickly.

    Raises:
        TrackingError: The address is not usable.
    """
    # MLflow takes seconds to import and half a gigabyte: only who carries metrics pays for that.
    import mlflow.entities
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException

    # At a run's end the client would print an address into our log.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    errors = (
        MlflowException,
        BotoCoreError,
        ClientError,
        Boto3Error,
        OSError,  # of its HTTP client, too
    )
    try:
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    except MlflowException as error:
        raise TrackingError(f"MLFLOW_TRACKING_URI is not usable: {error}") from error
    return MlflowServer(uri, client, mlflow.entities, errors)
