"""Measures the queue with many jobs on a real store: `make bench-jobs`.

1,000 queued and 5,000 ended jobs lie in a SeaweedFS of its own in a temporary folder; the cluster
is `tests.support.cluster`, so that Ray's own pace is left out. Measures the verbs as whole
processes, one loop of the orchestrator at rest and with a job starting, and what a new orchestrator
needs to take over. Prints a table and writes JSON.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF
from typing import Any

from ddpm.config import TrainingConfig
from orchestrator.client.submit import submit_job
from orchestrator.controller.lease import Lease
from orchestrator.controller.loop import Controller
from orchestrator.jobs.marks import Mark
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import AttemptRecord, JobState
from orchestrator.specs.resources import TrainResources
from orchestrator.specs.sections import DatasetSpec
from orchestrator.specs.train import TrainJob
from orchestrator.stack.files import StackFolder, StackState, load_secrets
from orchestrator.stack.launch import Launcher
from orchestrator.stack.parts import BUCKET, REGION, STORE_URI
from orchestrator.stack.ports import choose_ports
from orchestrator.stack.seaweed import STORE_PORTS, store_part, store_url
from orchestrator.store.s3_client import Patience, s3_client
from orchestrator.store.s3_store import S3Store, open_store
from tests.support.cluster import FakeCluster

ROOT = Path(__file__).resolve().parents[2]
THREADS = 16
Row = dict[str, Any]

JOB = """
kind: train
name: one-more
dataset: {source: digits}
training: {num_steps: 100}
"""


class CountingStore(S3Store):
    """The real store, counting what is asked of it."""

    num_requests = 0

    @contextmanager
    def _translated(
        self, key: str, conditional: bool = False, *, looked_at: str = ""
    ) -> Iterator[None]:
        self.num_requests += 1
        with super()._translated(key, conditional, looked_at=looked_at):
            yield


@contextmanager
def seaweed(root: Path) -> Iterator[None]:
    """Run the embedded stack's store alone, and make this process its client."""
    folder = StackFolder(root)
    folder.make()
    secrets, ports = load_secrets(folder), choose_ports(STORE_PORTS, {})
    launcher = Launcher(folder, StackState(ports=ports), print)
    try:
        launcher.bring_up(store_part(folder, secrets, ports))
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(
            DDPMCTL_STORE=STORE_URI,
            AWS_ENDPOINT_URL_S3=store_url(ports),
            AWS_ACCESS_KEY_ID=secrets.access_key_id,
            AWS_SECRET_ACCESS_KEY=secrets.secret_access_key,
            AWS_DEFAULT_REGION=REGION,
        )
        yield
    finally:
        launcher.end("store")


def spec_of(name: str) -> TrainJob:
    """Return a job of one CPU."""
    return TrainJob(
        kind="train",
        name=name,
        dataset=DatasetSpec(source="digits"),
        training=TrainingConfig(num_steps=100),
        resources=TrainResources(gpus_per_worker=0, cpus_per_worker=1),
    )


def put_ended(store: S3Store, number: int) -> None:
    """Write a job that ran and ended: its spec, its record, its events."""
    job_id = submit_job(store, spec_of(f"old-{number % 50}"), f"old-{number:05d}").job_id
    records, now = RecordStore(store), store.now()
    first = records.read(job_id)
    starting = replace(
        first.record.moved_to(JobState.STARTING, at=now),
        attempt=1,
        attempts=(AttemptRecord(number=1, started_at=now, ended_at=now, progress=100),),
    )
    ended = starting.moved_to(JobState.RUNNING, at=now).moved_to(
        JobState.SUCCEEDED, at=now, message="trained 100 steps"
    )
    records.move(first, ended)
    for key in (Mark.QUEUE.key(job_id), Mark.TRACKING.key(job_id)):
        store.delete(key)


def in_threads(action: Callable[[int], object], numbers: Sequence[int]) -> float:
    """Run an action for each number; return the seconds that it took."""
    began_at = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(action, numbers))
    return time.monotonic() - began_at


def verb(*arguments: str) -> None:
    """Run one verb as a user does, as a whole process."""
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", *arguments]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def cpu_s() -> float:
    """Return the seconds that this process and its children computed so far."""
    own, children = (resource.getrusage(who) for who in (RUSAGE_SELF, RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def timed(name: str, action: Callable[[], object], times: int) -> Row:
    """Measure an action several times: on the wall's clock, and on the processor."""
    wall, cpu = [], []
    for _ in range(times):
        began_at, computed_s = time.monotonic(), cpu_s()
        action()
        wall.append(time.monotonic() - began_at)
        cpu.append(cpu_s() - computed_s)
    row: Row = {"what": name, "median_s": statistics.median(wall), "worst_s": max(wall)}
    row["cpu_s"] = statistics.median(cpu)
    print("{what:<34}{median_s:>9.3f} s{worst_s:>9.3f} s{cpu_s:>9.3f} s".format(**row), flush=True)
    return row


def measure(num_queued: int, num_ended: int, times: int) -> list[Row]:
    """Fill the store, and measure."""
    store = open_store(STORE_URI)
    store.put("probe", b"")
    filled_s = in_threads(lambda number: put_ended(store, number), range(num_ended))
    filled_s += in_threads(
        lambda number: submit_job(store, spec_of(f"new-{number % 50}")), range(num_queued)
    )
    print(f"{num_queued} queued and {num_ended} ended jobs written in {filled_s:.0f} s")
    counting = CountingStore(
        s3_client(Patience()), BUCKET, STORE_URI.removeprefix(f"s3://{BUCKET}/")
    )
    cluster = FakeCluster(cpus=0)
    lease = Lease(counting, "bench", term_s=1e9)
    assert lease.acquire()
    print(f"{'':<34}{'median':>11}{'worst':>11}{'processor':>11}")
    rows = [timed("an orchestrator adopts all jobs", lambda: adopt(counting, cluster, lease), 1)]
    controller = Controller(counting, cluster, lease)
    rows.append(timed("another one takes over", controller.take_over, 1))
    controller.step()
    counting.num_requests = 0
    rows.append(timed("one loop at rest", controller.step, times))
    rows[-1]["requests"] = counting.num_requests / times
    rows.append(timed("one loop that starts a job", lambda: start_one(controller, cluster), times))
    last = max(controller.snapshot(cluster.nodes()).queue, key=lambda job: job.submitted_at)
    with holding(lease):
        rows += verbs(times, last.job_id)
    return rows


def adopt(store: S3Store, cluster: FakeCluster, lease: Lease) -> None:
    """Let a first orchestrator see all jobs, without an index to begin with."""
    controller = Controller(store, cluster, lease)
    controller.take_over()
    controller.step()


def start_one(controller: Controller, cluster: FakeCluster) -> None:
    """Make room for one more job, and take the loop that starts it."""
    cluster.cpus += 1
    before = len(cluster.started)
    controller.step()
    assert len(cluster.started) == before + 1


@contextmanager
def holding(lease: Lease) -> Iterator[None]:
    """Renew the lease in the background, as a running orchestrator does."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(1.0):
            lease.renew()

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def verbs(times: int, explained: str) -> list[Row]:
    """Measure the command line; a first call warms the file system's cache."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.yaml"
        file.write_text(JOB)
        verb("submit", str(file))
        return [
            timed("ddpmctl list", lambda: verb("list"), times),
            timed("ddpmctl list --all", lambda: verb("list", "--all"), times),
            timed("ddpmctl submit", lambda: verb("submit", str(file)), times),
            timed("ddpmctl status", lambda: verb("status", "old-00001"), times),
            timed("ddpmctl explain", lambda: verb("explain", explained), times),
        ]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queued", type=int, default=1000)
    parser.add_argument("--ended", type=int, default=5000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("bench-jobs.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ddpmctl-bench-") as folder, seaweed(Path(folder)):
        rows = measure(options.queued, options.ended, options.times)
    result = {"queued": options.queued, "ended": options.ended, "rows": rows}
    options.output.write_text(json.dumps(result, indent=1))
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
