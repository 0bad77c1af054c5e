"""An orchestrator that slept past its lease, while another one acted, changes nothing."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.client.ensure import ensure_orchestrator
from orchestrator.cluster.ray_jobs import RayJobs
from orchestrator.jobs.lease_view import LeaseView, read_lease
from orchestrator.stack.embedded import StackInfo
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.s3_store import open_store
from tests.integration.commands import ddpmctl, submit, train_text, wait_until

# The same class as the named actor's, in a process of its own that nobody watches over.
SECOND = """
import sys, time, ray
from orchestrator.controller.leading import OrchestratorActor
ray.init(address="auto")
actor = OrchestratorActor(sys.argv[1])
time.sleep(600)
"""
AWAKE_S = 8.0  # several rounds of its loop


@pytest.fixture
def store(stack_info: StackInfo) -> ObjectStore:
    """The store of the session's stack, with an orchestrator that acts."""
    store = open_store(stack_info.environment["DDPMCTL_STORE"])
    ensure_orchestrator(store, lambda line: None)
    return store


@pytest.fixture
def second_id(tmp_path: Path) -> Iterator[str]:
    """The id of the Ray Job that runs a second orchestrator; stopped at the end."""
    name = f"second-{os.getpid()}"
    yield name
    RayJobs().stop(name)


def lease_of(store: ObjectStore) -> LeaseView:
    """Return the lease, which somebody has."""
    lease = read_lease(store)
    assert lease is not None
    return lease


def objects_of(store: ObjectStore, job_id: str) -> dict[str, str]:
    """Return the ETags of a job's record, events and commits."""
    job = JobPaths(job_id)
    listed = [*store.list_objects(job.events), *store.list_objects(job.checkpoints)]
    return {info.key: info.etag for info in listed} | {"record": store.get(job.record).etag}


def test_an_orchestrator_that_was_stopped_past_its_lease_changes_nothing_when_it_wakes(
    store: ObjectStore, second_id: str, tmp_path: Path
) -> None:
    """It holds records, ETags and a half-done round of before; all of them are void."""
    job_id = submit(tmp_path, train_text("asleep", steps=200, every=50))
    first = lease_of(store).holder
    script = tmp_path / "second.py"
    script.write_text(SECOND)
    wait_until(lambda: ddpmctl("status", job_id).value["state"] == "STARTING")
    os.kill(first.pid, signal.SIGSTOP)
    try:
        RayJobs().submit(
            second_id, f"{sys.executable} {script} {store.uri}", metadata={}, runtime_env={}
        )
        wait_until(lambda: lease_of(store).holder.owner != first.owner)
        wait_until(lambda: ddpmctl("status", job_id).value["state"] == "SUCCEEDED")
        second, before = lease_of(store).holder, objects_of(store, job_id)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    time.sleep(AWAKE_S)
    now = lease_of(store)
    assert now.is_fresh
    assert (now.holder.owner, now.holder.fence) == (second.owner, second.fence)
    assert second.fence > first.fence
    assert objects_of(store, job_id) == before
    assert ddpmctl("status", job_id).value["attempt"] == 1
    os.kill(second.pid, signal.SIGKILL)
    wait_until(lambda: lease_of(store).holder.pid == first.pid)
