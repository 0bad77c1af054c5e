"""What is asked of jobs on hosts; all of it from the host that has only the command line."""

import json
from typing import Any

from tests.hosts.user import CLI, User

_OPEN = """
import json, time
from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.checkpoints.commit import decode_commit
from orchestrator.jobs.lease_view import read_lease
from orchestrator.store.keys import JobPaths
from orchestrator.store.s3_store import open_store
store = open_store("s3://ddpmctl/store")
"""
_STEP = """
steps = CheckpointStore(store, JobPaths({job!r})).steps
while max(steps(), default=0) < {step}:
    time.sleep(0.05)
"""
_WEIGHTS = """
paths = JobPaths({job!r})
step = max(CheckpointStore(store, paths).steps())
files = decode_commit(store.get(paths.checkpoint(step))).files
print(json.dumps({{f.name: f.sha256 for f in files if f.name.endswith(".safetensors")}}))
"""
_SHARDS = """
from orchestrator.artifacts.samples.shards import SampleShards
indices = SampleShards(store, JobPaths({job!r})).indices
while len(list(indices())) < {number}:
    time.sleep(0.05)
"""
_SET = """
from orchestrator.artifacts.samples.manifest import read_manifest
print(json.dumps(read_manifest(store, JobPaths({job!r})).set_sha256))
"""
_LEADER = """
print(json.dumps(read_lease(store).holder.host))
"""


def wait_for_step(user: User, job_id: str, step: int) -> None:
    """Return as soon as a training has committed a checkpoint at a step or later."""
    user.python(CLI, _OPEN + _STEP.format(job=job_id, step=step))


def wait_for_shards(user: User, job_id: str, number: int) -> None:
    """Return as soon as a sample job has committed so many shards."""
    user.python(CLI, _OPEN + _SHARDS.format(job=job_id, number=number))


def set_sha256(user: User, job_id: str) -> str:
    """Return the hash of all images of a set."""
    return str(_ask(user, _SET.format(job=job_id)))


def final_weights(user: User, job_id: str) -> dict[str, str]:
    """Return the SHA-256 of each file of the newest checkpoint, by its name."""
    found: dict[str, str] = _ask(user, _WEIGHTS.format(job=job_id))
    return found


def leader(user: User) -> str:
    """Return the host that the orchestrator runs on."""
    return str(_ask(user, _LEADER))


def status(user: User, job_id: str) -> dict[str, Any]:
    """Return what `status` shows."""
    value: dict[str, Any] = user.ddpmctl("status", job_id).value
    return value


def ended(user: User, job_id: str) -> dict[str, Any]:
    """Wait for a job to end, which must be well; return what `status` shows of it."""
    answer = user.ddpmctl("wait", job_id, timeout_s=500.0)
    assert answer.exit_code == 0, (answer, user.ddpmctl("events", job_id).value)
    return dict(answer.value)


def reasons(shown: dict[str, Any]) -> list[str | None]:
    """Return why each attempt ended, None for the one that ended well."""
    return [attempt["reason"] for attempt in shown["attempts"]]


def _ask(user: User, code: str) -> Any:
    return json.loads(user.python(CLI, _OPEN + code))
