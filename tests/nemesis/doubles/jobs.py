"""The jobs that the simulated users submit: all shapes, none of which computes anything."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from ddpm.config import SamplingConfig
from orchestrator.lifecycle.retry import BUDGETS, RetryBudget, RetryPolicy
from orchestrator.specs.files import load_submission
from orchestrator.specs.group import GroupJob
from orchestrator.specs.job import Job
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from tests.support.world import train_job

STEPS = 10
SHARDS, SHARD_SIZE = 4, 8
# Faults come far oftener than budgets of retries are made for: none runs out here.
_BUDGET = RetryBudget(max_retries=10**6, backoff_s=1.0, max_backoff_s=10.0)
_BUDGETS: dict[str, Any] = dict.fromkeys(BUDGETS.values(), _BUDGET)
PATIENT = RetryPolicy(**_BUDGETS)
_JOB = f"""kind: train
    dataset: {{source: digits}}
    training: {{num_steps: {STEPS}}}
    resources: {{cpus_per_worker: 1}}
"""
_STEPS = f"  a:\n    {_JOB}\n  b:\n    after: a\n    {_JOB}"
_GROUPS = {
    "pipeline": f"kind: pipeline\nname: g\nsteps:\n{_STEPS}",
    "sweep": f"kind: sweep\nname: g\nmatrix: {{training.seed: [0, 1, 2]}}\njob:\n    {_JOB}",
}


def training(workers: int = 1, *, is_urgent: bool = False) -> Job:
    """Return a training of ten steps."""
    priority = 90 if is_urgent else 50
    return train_job(workers=workers, asks={"cpus_per_worker": 2}, retry=PATIENT, priority=priority)


def drawing(model_job: str) -> Job:
    """Return a job that draws four shards from a training's last checkpoint."""
    return SampleJob(
        kind="sample",
        name="s",
        model=ModelRef(job=model_job),
        num_samples=SHARDS * SHARD_SIZE,
        shard_size=SHARD_SIZE,
        sampling=SamplingConfig(microbatch_size=SHARD_SIZE),
        retry=PATIENT,
    )


@cache
def group(kind: str) -> GroupJob:
    """Return a pipeline of two trainings, or a sweep of three."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.yaml"
        path.write_text(_GROUPS[kind])
        spec = load_submission(path)
    assert isinstance(spec, GroupJob)
    children = [
        child.model_copy(update={"spec": child.spec.model_copy(update={"retry": PATIENT})})
        for child in spec.children
    ]
    return spec.model_copy(update={"children": tuple(children)})
