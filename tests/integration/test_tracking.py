"""What MLflow shows of a job, on the real server and the real store, through outages and kills."""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.artifacts.images import encode_png
from orchestrator.errors import TrackingError
from orchestrator.jobs.records import RECORD
from orchestrator.lifecycle.state import JobState
from orchestrator.stack.embedded import Stack, StackInfo
from orchestrator.stack.files import StackFolder, load_state
from orchestrator.store.keys import JobPaths
from orchestrator.store.s3_store import S3Store, open_store
from orchestrator.tracking.carrier import TrackingCarrier
from orchestrator.tracking.mlflow_server import open_mlflow
from orchestrator.tracking.writer import MetricWriter
from tests.integration.nodes import kill_tree
from tests.support.records import record_of

ROOT = Path(__file__).resolve().parents[2]
PNG = encode_png(np.full((8, 8, 3), 128, np.uint8))

# A training that saves every 20 steps: it says so when the metrics of those steps are safe.
TRAINING = """
import itertools, sys, time
from orchestrator.tracking.writer import MetricWriter
from orchestrator.store.keys import JobPaths
from orchestrator.store.s3_store import open_store
from tests.support.records import record_of
writer = MetricWriter(open_store(sys.argv[1]), JobPaths(sys.argv[2]).attempt(1), every_s=0.1)
for step in itertools.count(1):
    writer.log(step, {"loss": 1 / step})
    if step % 20 == 0:
        writer.flush()
        print(step, flush=True)
    time.sleep(0.005)
"""


class TrackedJob:
    """A job as the orchestrator leaves it in the store; its driver is this test."""

    def __init__(self, store: S3Store) -> None:
        self.store = store
        self.job_id = f"tracked-{secrets.token_hex(4)}"
        self.paths = JobPaths(self.job_id)
        now = datetime.now(UTC)
        running = JobState.RUNNING
        self.record = record_of(self.job_id, now, name="tracked", state=running, attempt=1)
        spec = {
            "kind": "train",
            "name": "tracked",
            "training": {"num_steps": 200, "learning_rate": 2e-4},
            "note": "x" * 7000,
            "tracking": {"experiment": "tracking tests"},
        }
        store.put(self.paths.spec, json.dumps(spec).encode())
        self.move()

    def move(self, **changes: Any) -> None:
        """Write the record with changes."""
        self.record = replace(self.record, **changes)
        self.store.put(self.paths.record, RECORD.encode(self.record))


@pytest.fixture
def job(stack_info: StackInfo, monkeypatch: pytest.MonkeyPatch) -> TrackedJob:
    """A running job in the real store."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    return TrackedJob(open_store(stack_info.environment["DDPMCTL_STORE"]))


def new_carrier(job: TrackedJob) -> TrackingCarrier:
    """Return a carrier as a fresh orchestrator has it."""
    return TrackingCarrier(job.store, open_mlflow(os.environ["MLFLOW_TRACKING_URI"]))


def mlflow_client() -> Any:
    """Return MLflow's own client, to look with."""
    from mlflow import MlflowClient

    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


def run_of(job: TrackedJob) -> Any:
    """Return the one run of a job."""
    client = mlflow_client()
    experiment = client.get_experiment_by_name("tracking tests")
    (run,) = client.search_runs(
        [experiment.experiment_id], f"tags.`ddpmctl.job_id` = '{job.job_id}'"
    )
    return run


def history(run_id: str, name: str) -> dict[int, float]:
    """Return a metric's values by step; a step that stands twice is an error."""
    values = mlflow_client().get_metric_history(run_id, name)
    assert max(Counter(value.step for value in values).values()) == 1
    return {value.step: value.value for value in values}


def kill_mlflow(info: StackInfo) -> None:
    """Kill the MLflow server and all its workers."""
    kill_tree(load_state(StackFolder(info.folder)).leaders["mlflow"].pid)


def write_everything(writer: MetricWriter) -> None:
    """Say one of each kind of thing that a training says."""
    writer.log_tags({"mlflow.source.git.commit": "0123abc"})
    writer.log_dataset(
        "digits", digest="d" * 64, source="s3://ddpmctl/store/datasets/d", profile={"images": 1797}
    )
    writer.log(10, {"loss": float("nan"), "odd name!": 1.0})
    writer.log_system({"system/cpu_utilization_percentage": 50.0})
    writer.log_image("samples/step-000010.png", PNG, 10)
    writer.log_model(
        "tracked",
        source="s3://ddpmctl/store/jobs/x/attempts/1/data/step-10/",
        step=10,
        sha256="e" * 64,
        tags={"ddpmctl.commit": "s3://ddpmctl/store/jobs/x/checkpoints/step-10.json"},
    )


def test_everything_a_job_says_is_on_its_page(job: TrackedJob, tmp_path: Path) -> None:
    """Params, tags, data set, image, model, system metrics: MLflow takes each of them."""
    with MetricWriter(job.store, job.paths.attempt(1)) as writer:
        write_everything(writer)
    result = new_carrier(job).carry(job.job_id)
    run = run_of(job)
    assert run.info.run_id == result.run_id
    assert run.data.params["training.learning_rate"] == "0.0002"
    assert len(run.data.params["note"]) == 6000
    assert run.data.tags["mlflow.source.git.commit"] == "0123abc"
    experiment = mlflow_client().get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert np.isnan(run.data.metrics["loss"])
    assert run.data.metrics["system/cpu_utilization_percentage"] == 50.0
    assert run.data.metrics["odd name_"] == 1.0
    (data_input,) = run.inputs.dataset_inputs
    assert json.loads(data_input.dataset.profile) == {"sha256": "d" * 64, "images": 1797}
    client = mlflow_client()
    path = client.download_artifacts(run.info.run_id, "samples/step-000010.png", str(tmp_path))
    assert Path(path).read_bytes() == PNG
    versions = client.search_model_versions("name = 'tracked'")
    (version,) = [version for version in versions if version.run_id == result.run_id]
    assert version.tags["ddpmctl.sha256"] == "e" * 64
    assert version.source.endswith("data/step-10/")


def test_sending_again_changes_nothing(job: TrackedJob) -> None:
    """A carrier that dies after sending and before noting it makes the next one send again."""
    carrier = new_carrier(job)
    carrier.carry(job.job_id)
    before = job.store.get(job.paths.tracking_cursor).body
    with MetricWriter(job.store, job.paths.attempt(1)) as writer:
        write_everything(writer)
        for step in range(1, 1501):
            writer.log(step, {"grad_norm": 1 / step})
    for _ in range(3):
        job.store.put(job.paths.tracking_cursor, before)
        carrier = new_carrier(job)
        carrier.carry(job.job_id)
    run = run_of(job)
    assert history(run.info.run_id, "grad_norm").keys() == set(range(1, 1501))
    assert len(history(run.info.run_id, "system/cpu_utilization_percentage")) == 1
    assert len(run.inputs.dataset_inputs) == 1
    versions = mlflow_client().search_model_versions("name = 'tracked'")
    assert len([version for version in versions if version.run_id == run.info.run_id]) == 1


def test_end_state_and_retry_are_set_from_outside(job: TrackedJob) -> None:
    """The run of a killed job is not left RUNNING, and a retry opens it again."""
    with MetricWriter(job.store, job.paths.attempt(1)) as writer:
        writer.log(1, {"loss": 0.5})
    carrier = new_carrier(job)
    job.move(state=JobState.FAILED)
    assert carrier.carry(job.job_id).done
    assert run_of(job).info.status == "FAILED"
    job.move(state=JobState.RUNNING, attempt=2)
    assert not carrier.carry(job.job_id).done
    assert run_of(job).info.status == "RUNNING"
    job.move(state=JobState.CANCELLED)
    assert carrier.carry(job.job_id).done
    assert run_of(job).info.status == "KILLED"


def test_outage_and_kill_delay_metrics_and_lose_none(
    job: TrackedJob, stack: Stack, stack_info: StackInfo
) -> None:
    """MLflow is down, the worker is killed meanwhile, the carrier is begun again: once each."""
    new_carrier(job).carry(job.job_id)
    kill_mlflow(stack_info)
    saved = _train_until_killed(job, at_least=60)
    for _ in range(2):
        with pytest.raises(TrackingError, match="does not answer"):
            new_carrier(job).carry(job.job_id)
    job.move(attempt=2)
    with MetricWriter(job.store, job.paths.attempt(2)) as writer:
        for step in range(saved + 1, 201):
            writer.log(step, {"loss": 1 / step})
    job.move(state=JobState.SUCCEEDED)
    with pytest.raises(TrackingError, match="does not answer"):
        new_carrier(job).carry(job.job_id)
    stack.up()
    carrier = new_carrier(job)
    while not carrier.carry(job.job_id).done:
        continue
    run = run_of(job)
    assert history(run.info.run_id, "loss") == {step: 1 / step for step in range(1, 201)}
    assert run.info.status == "FINISHED"


def _train_until_killed(job: TrackedJob, at_least: int) -> int:
    """Run a training, kill -9 it in the middle of things, and return the last saved step."""
    store_uri = os.environ["DDPMCTL_STORE"]
    training = subprocess.Popen(
        [sys.executable, "-c", TRAINING, store_uri, job.job_id],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with training:
        assert training.stdout is not None
        saved = next(int(line) for line in training.stdout if int(line) >= at_least)
        training.send_signal(signal.SIGKILL)
        rest = training.stdout.read().split()
    return max([saved, *map(int, rest)])
