"""The smoke test: what every attempt tries first, and the small job of `submit --smoke`.

The small job has the settings of the main one, on one worker, and ends after its smoke test. It
has the main job's priority, so it evicts nobody whom the main job would not evict.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from orchestrator.errors import SmokeTestError
from orchestrator.outcome import headline, reason_of
from orchestrator.paths import MAX_JOB_ID_LENGTH
from orchestrator.spec import MAX_NAME_LENGTH, Job, TrainJob, WorkerRange

MAX_RUNTIME_S = 900.0
NUM_STEPS = 2
_ENDING = "-smoke"


@contextmanager
def smoke_part(doing: str, kind: type[Exception] = Exception) -> Iterator[None]:
    """Have what goes wrong inside told as the smoke test's, with the reason that it stands for.

    Args:
        doing: What is tried: "taking a step", ...
        kind: Which errors; others go their own way.

    Raises:
        SmokeTestError: Something went wrong.
    """
    try:
        yield
    except kind as error:
        raise SmokeTestError(doing, reason_of(error), headline(error)) from error


def smoke_job_id(job_id: str) -> str:
    """Return the id of a job's smoke test: the same each time."""
    if len(job_id) + len(_ENDING) <= MAX_JOB_ID_LENGTH:
        return f"{job_id}{_ENDING}"
    digest = hashlib.sha256(job_id.encode()).hexdigest()[:6]
    kept = job_id[: MAX_JOB_ID_LENGTH - len(_ENDING) - len(digest) - 1].rstrip("-")
    return f"{kept}-{digest}{_ENDING}"


def smoke_job(spec: Job, job_id: str) -> Job:
    """Return the small job that a job waits for: its settings on one worker, for one look.

    Args:
        spec: The main job.
        job_id: Its id.
    """
    runtime_s = min(spec.max_runtime_s or MAX_RUNTIME_S, MAX_RUNTIME_S)
    changes = {
        "name": spec.name[: MAX_NAME_LENGTH - len(_ENDING)].rstrip("-") + _ENDING,
        "max_runtime_s": runtime_s,
        "preemptible": False,
        "notify": None,
        "smoke_of": job_id,
    }
    if isinstance(spec, TrainJob):
        resources = spec.resources.model_copy(update={"num_workers": 1})
        share = spec.training.global_batch_size // spec.resources.num_workers
        training = replace(spec.training, global_batch_size=share)
        return spec.model_copy(update={**changes, "resources": resources, "training": training})
    sampling = replace(
        spec.sampling, num_steps=min(NUM_STEPS, spec.sampling.num_steps), trajectory=0
    )
    return spec.model_copy(
        update={
            **changes,
            "resources": spec.resources.model_copy(update={"num_workers": WorkerRange()}),
            "sampling": sampling,
            "num_samples": 1,
            "shard_size": sampling.microbatch_size,
        }
    )
