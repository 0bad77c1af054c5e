"""The main job, as a user runs it, against a real Ray, a real store and a real MLflow."""

import asyncio
import json
import os
import re
import shutil
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from mlflow.tracking import MlflowClient
from ruamel.yaml import YAML

from orchestrator.api import Client
from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.images import encode_png
from orchestrator.artifacts.samples.verify import verify_samples
from orchestrator.jobs.lease_view import read_lease
from orchestrator.jobs.records import RecordStore
from orchestrator.stack.embedded import StackInfo
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_store
from tests.integration.commands import (
    SAMPLE,
    ddpmctl,
    registered_processes,
    submit,
    train_text,
    wait_until,
)
from tests.support.browser import open_page

CLASSES = ("a #1?", "b c", "ü")


@pytest.fixture(scope="module")
def store(stack_info: StackInfo) -> ObjectStore:
    """The store of the session's stack."""
    return open_store(stack_info.environment["DDPMCTL_STORE"])


def kill(pid: int) -> None:
    """End a process as a crash does."""
    os.kill(pid, signal.SIGKILL)


def checkpoint_hash(store: ObjectStore, job_id: str, step: int) -> dict[str, str]:
    """Return the hashes of a checkpoint's tensors."""
    commit = CheckpointStore(store, JobPaths(job_id)).find(step)
    assert commit is not None
    return {f.name: f.sha256 for f in commit.files if f.name.endswith(".safetensors")}


def wait_for_checkpoint(store: ObjectStore, job_id: str, step: int) -> None:
    """Wait until a checkpoint of that step or a later one is committed."""
    checkpoints = CheckpointStore(store, JobPaths(job_id))
    wait_until(lambda: max(checkpoints.steps(), default=0) >= step)


def states(job_id: str) -> list[str]:
    """Return the states that a job went through."""
    return [e["state"] for e in ddpmctl("events", job_id).value if e["state"]]


def look_at_mlflow(front: str, status: dict[str, Any], profile: Path) -> None:
    """Open MLflow's pages of a run in a real browser: its numbers, a picture, and its model.

    Args:
        front: MLflow's address for a browser, with what lets it in.
        status: What `status -o json` says of the job.
        profile: A folder for the browser.
    """
    if shutil.which("chromium") is None:
        return  # said by the test of the report
    run = f"{front}#/experiments/{status['experiment_id']}/runs/{status['run_id']}"
    pages = {
        run: "holdout/bpd_denoising",
        f"{run}/artifacts/film/reverse-chain.png": "reverse-chain.png",
        f"{front}#/models/main": "ddpmctl.commit",
    }
    for address, shown in pages.items():
        last = r'<img[^>]*src="blob:' if address.endswith(".png") else re.escape(shown)
        opened = open_page(address, profile, within_ms=20_000, awaited=last)
        assert shown in opened.text, address
        assert re.search(last, opened.dom), address
        assert not [line for line in opened.complaints if "Error" in line], opened.complaints


def predicted(uri: str, **asked: object) -> Any:
    """Return what a registered model draws, loaded as MLflow's users load one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import pyfunc

        return pyfunc.load_model(uri).predict(asked)


def test_a_job_file_trains_and_another_one_samples(
    store: ObjectStore, stack_info: StackInfo, tmp_path: Path
) -> None:
    """The demo's path: two workers, MLflow's run and registry, and a whole set of images.

    One job comes from the command line and one from a program, which meets the same queue.
    """
    training = submit(tmp_path, train_text("main", steps=30, workers=2, samples=15))
    program = Client()
    drawn = program.submit(YAML(typ="safe").load(SAMPLE.format(name="main-samples", model="main")))
    sampling = drawn.id
    assert drawn.status().reason in (None, "WAITING_FOR_MODEL")
    assert {job.job_id for job in program.jobs()} >= {training, sampling}
    with pytest.raises(TimeoutError, match="it goes on"):
        drawn.wait(timeout_s=0.1)
    assert ddpmctl("wait", training).exit_code == 0
    assert asyncio.run(drawn.wait_async()).state == "SUCCEEDED"
    assert program.job("main").wait().state == "SUCCEEDED"
    assert verify_samples(store, sampling).is_whole
    images = program.samples("main-samples").images(0, 20)
    assert images.shape == (20, 8, 8, 1)
    assert images.min() < images.max()
    wait_until(lambda: not store.exists(f"tracking/{training}"))
    client = MlflowClient(stack_info.environment["MLFLOW_TRACKING_URI"])
    run_id = ddpmctl("status", training).value["run_id"]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["training.num_steps"] == "30"
    assert not [name for name in run.data.params if name.startswith(("retry", "notify"))]
    bound = {name: run.data.metrics[f"holdout/bpd{name}"] for name in ("", "_prior", "_denoising")}
    assert bound[""] > bound["_denoising"] > 0
    history = client.get_metric_history(run_id, "loss")
    steps = [m.step for m in history]
    scores = ddpmctl("status", training).value["scores"]
    assert scores == {
        "loss": history[-1].value,
        "bpd": bound[""],
        "bpd_se": run.data.metrics["holdout/bpd_se"],
    }
    assert steps == [5, 10, 15, 20, 25, 30]
    measured = program.job(training).metrics()["loss"].dropna()
    assert measured.to_dict() == {metric.step: metric.value for metric in history}
    artifacts = {a.path for folder in ("samples", "film") for a in
                 client.list_artifacts(run_id, folder)}  # fmt: skip
    assert "samples/step-000015.png" in artifacts
    assert "film/reverse-chain.png" in artifacts
    versions = client.search_model_versions("name = 'main'")
    assert [v.tags["ddpmctl.commit"].rpartition("/")[2] for v in versions] == [
        "step-000000030.json"
    ]
    look_at_mlflow(stack_info.mlflow_url, ddpmctl("status", training).value, tmp_path / "profile")
    assert predicted("models:/main/1", num_samples=2, num_steps=3).shape == (2, 8, 8, 1)


def test_killed_workers_and_orchestrators_lose_no_job_and_change_no_bit(
    store: ObjectStore, tmp_path: Path
) -> None:
    """It resumes off a checkpoint's boundary and ends with the bits of one never killed."""
    calm = submit(tmp_path, train_text("calm", steps=300, every=100))
    shaken = submit(tmp_path, train_text("calm", steps=300, every=100))
    wait_for_checkpoint(store, shaken, 100)
    kill(registered_processes(store, shaken, 1, "worker")[0])
    lease = read_lease(store)
    assert lease is not None
    kill(lease.holder.pid)
    assert ddpmctl("wait", shaken).exit_code == 0
    assert ddpmctl("wait", calm).exit_code == 0
    record = RecordStore(store).read(shaken).record
    assert [attempt.reason for attempt in record.attempts] == ["WORKER_LOST", None]
    assert checkpoint_hash(store, shaken, 300) == checkpoint_hash(store, calm, 300)


def class_folders(folder: Path) -> Path:
    """Return a folder of 60 grey images whose classes are its folders, with odd names."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8)
    for number, image in enumerate(noise):
        path = folder / CLASSES[number // 10 % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(image))
    return folder


def test_a_killed_driver_is_followed_by_another_attempt(
    store: ObjectStore, stack_info: StackInfo, tmp_path: Path
) -> None:
    """No outcome was written, so the orchestrator has to find out by itself.

    Both attempts tell MLflow of the data set and its classes; it has them once.
    """
    text = train_text("driver", steps=400, every=20).replace(
        "model: {", "model: {num_classes: auto, "
    )
    source = f'"{class_folders(tmp_path / "photos")}"'
    job_id = submit(tmp_path, text.replace("digits", source))
    wait_for_checkpoint(store, job_id, 20)
    wait_until(lambda: ddpmctl("status", job_id).value["state"] == "RUNNING")
    workers = registered_processes(store, job_id, 1, "worker")
    assert [psutil.Process(pid).environ()["MALLOC_ARENA_MAX"] for pid in workers] == ["1"]
    kill(registered_processes(store, job_id, 1, "driver")[0])
    assert ddpmctl("wait", job_id).exit_code == 0
    assert states(job_id) == [
        "QUEUED", "STARTING", "RUNNING", "STOPPING", "QUEUED", "STARTING", "RUNNING", "SUCCEEDED",
    ]  # fmt: skip
    assert not any(psutil.pid_exists(pid) for pid in workers)
    wait_until(lambda: not store.exists(f"tracking/{job_id}"))
    run_id = ddpmctl("status", job_id).value["run_id"]
    run = MlflowClient(stack_info.environment["MLFLOW_TRACKING_URI"]).get_run(run_id)
    (logged,) = run.inputs.dataset_inputs
    profile = json.loads(logged.dataset.profile)
    assert (logged.dataset.name, profile["num_images"]) == ("photos", 60)
    assert profile["images_by_class"] == dict.fromkeys(CLASSES, 20)
    assert "data_wait_s" in run.data.metrics


def test_jobs_are_cancelled_in_the_queue_and_at_work_and_retried(
    store: ObjectStore, tmp_path: Path
) -> None:
    """Cancel returns when nothing of the job is left; retry goes on from the saved step."""
    running = submit(tmp_path, train_text("running", steps=5000, every=1000, workers=3))
    # The store's clock tells seconds: of jobs submitted within one, either may go first.
    wait_until(lambda: ddpmctl("status", running).value["state"] != "QUEUED")
    queued = submit(tmp_path, train_text("queued", steps=10, workers=3))
    wait_until(lambda: ddpmctl("status", running).value["done"] > 5)
    assert ddpmctl("status", queued).value["state"] == "QUEUED"
    assert ddpmctl("explain", queued).value["verdict"] == "not now"
    assert ddpmctl("cancel", queued).exit_code == 0
    pids = registered_processes(store, running, 1, "")
    cancelled = ddpmctl("cancel", running)
    assert (cancelled.exit_code, cancelled.value["state"]) == (0, "CANCELLED")
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert ddpmctl("wait", running).exit_code == 103
    saved = max(CheckpointStore(store, JobPaths(running)).steps())
    assert saved % 1000 != 0
    assert ddpmctl("retry", queued).exit_code == 0
    assert ddpmctl("wait", queued).exit_code == 0
    assert states(queued)[-4:] == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]


def test_a_loss_that_is_not_finite_fails_the_job_and_keeps_the_last_good_checkpoint(
    store: ObjectStore, tmp_path: Path
) -> None:
    """Another attempt would diverge as well."""
    text = train_text("wild", steps=400, every=10).replace("1e-3", "1e20")
    job_id = submit(tmp_path, text)
    ended = ddpmctl("wait", job_id)
    assert ended.exit_code == 100
    assert (ended.value["reason"], ended.value["attempt"]) == ("DIVERGED", 1)


def test_a_damaged_checkpoint_is_passed_over_and_told(store: ObjectStore, tmp_path: Path) -> None:
    """The newest one that is whole is the one that counts."""
    job_id = submit(tmp_path, train_text("torn", steps=5000, every=10))
    wait_for_checkpoint(store, job_id, 20)
    assert ddpmctl("cancel", job_id).exit_code == 0
    checkpoints = CheckpointStore(store, JobPaths(job_id))
    newest, before = checkpoints.listing()[-1], checkpoints.listing()[-2]
    store.put(f"{newest.folder}ema.safetensors", b"not what was committed")
    assert ddpmctl("retry", job_id).exit_code == 0
    wait_until(lambda: f"goes on from step {before.step}" in told(job_id))
    assert f"the checkpoint of step {newest.step} is passed over" in told(job_id)
    assert ddpmctl("cancel", job_id).exit_code == 0


def told(job_id: str) -> str:
    """Return what all events of a job say."""
    return "\n".join(event["message"] for event in ddpmctl("events", job_id).value)
