"""Takes the orchestrator's real loop through 10,000 jobs on 4,096 GPUs: `make bench-queue`.

Records, requests, events, the index and the lease are the product's; the store is a dictionary that
counts, and the cluster is `tests.support.cluster`: what is measured is what the loop itself costs,
and how often it asks the store. Jobs that were started run with a driver that beats, so that each
loop follows them all. Prints a table and writes JSON.
"""

import argparse
import bisect
import json
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from ddpm.config import TrainingConfig
from orchestrator.client.submit import submit_job
from orchestrator.controller.lease import Lease
from orchestrator.controller.loop import Controller
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobState
from orchestrator.specs.resources import TrainResources
from orchestrator.specs.sections import DatasetSpec
from orchestrator.specs.train import TrainJob
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectInfo, StoredObject
from tests.benchmarks.simulate_queue import PRIORITIES, SIZES, cluster_nodes
from tests.support.cluster import FakeCluster
from tests.support.fakes import MemoryStore

Row = dict[str, Any]
MIB = 2**20


class CountingStore(MemoryStore):
    """A store in memory that counts what is asked of it, and finds a folder without a search."""

    def __init__(self) -> None:
        super().__init__()
        self.num_requests = 0
        self._in_order: list[str] = []
        self._lock = threading.RLock()  # jobs are adopted by several threads

    def get(self, key: str) -> StoredObject:
        """Return an object."""
        self.num_requests += 1
        return super().get(key)

    def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write an object under a condition."""
        with self._lock:
            self.num_requests += 1
            is_new = key not in self.objects
            etag = super().put(key, body, if_absent=if_absent, if_match=if_match)
            if is_new:
                bisect.insort(self._in_order, key)
            return etag

    def delete(self, key: str) -> None:
        """Remove an object."""
        with self._lock:
            self.num_requests += 1
            if key in self.objects:
                del self._in_order[bisect.bisect_left(self._in_order, key)]
            super().delete(key)

    def list_objects(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """Yield what is below a prefix and above `after`."""
        with self._lock:
            self.num_requests += 1
            first = bisect.bisect_left(self._in_order, prefix)
            last = bisect.bisect_left(self._in_order, f"{prefix}\uffff")
            found = [(key, self.objects[key]) for key in self._in_order[first:last] if key > after]
        for key, stored in found:
            yield ObjectInfo(key, len(stored.body), stored.etag, stored.modified_at)


def big_cluster(scale: float) -> FakeCluster:
    """Return 4,096 GPUs at scale 1."""
    cluster, nodes = FakeCluster(), cluster_nodes(scale)
    cluster.node_ids = [node.node_id for node in nodes]
    cluster.told_of = {
        node.node_id: {
            "cpus": node.cpus,
            "gpus": node.gpus,
            "free_cpus": node.free_cpus,
            "free_gpus": node.free_gpus,
        }
        for node in nodes
    }
    return cluster


def submit(store: CountingStore, number: int, chance: random.Random) -> None:
    """Queue a job of a size and priority as they come."""
    workers, gpus = chance.choices(list(SIZES), list(SIZES.values()))[0]
    priority = chance.choices(list(PRIORITIES), list(PRIORITIES.values()))[0]
    spec = TrainJob(
        kind="train",
        name=f"job-{number % 100}",
        dataset=DatasetSpec(source="digits"),
        training=TrainingConfig(num_steps=100),
        resources=TrainResources(
            num_workers=workers, gpus_per_worker=float(gpus), cpus_per_worker=gpus
        ),
        priority=priority,
    )
    submit_job(store, spec, f"job-{number:05d}")


def begin(store: CountingStore, cluster: FakeCluster) -> int:
    """Have the driver of every job that was started run and beat; return how many there are."""
    records = RecordStore(store)
    busy = 0
    for submission_id in cluster.started:
        job_id, number = submission_id.rsplit(".", 1)
        if records.read(job_id).record.state is not JobState.STARTING:
            continue
        busy += 1
        attempt = JobPaths(job_id).attempt(int(number))
        pid = 1000 + busy
        process = {
            "role": "driver", "pid": pid, "born_s": 1.0, "boot_id": "b", "node_id": "n", "host": "h"
        }  # fmt: skip
        store.put(f"{attempt.processes}driver-{pid}.json", json.dumps(process).encode())
        said = {"at": store.now().isoformat(), "phase": "running", "committed": 1}
        store.put(attempt.heartbeat, json.dumps(said).encode())
        cluster.running.add(pid)
    return busy


def controller_of(store: CountingStore, cluster: FakeCluster) -> Controller:
    """Return a new orchestrator that holds the lease."""
    store.delete(keys.LEASE)
    lease = Lease(store, "bench", term_s=1e9)
    assert lease.acquire()
    return Controller(store, cluster, lease)


def timed(store: CountingStore, what: str, action: Callable[[], object], times: int = 1) -> Row:
    """Measure an action: seconds on the processor and on the clock, and requests to the store."""
    wall, cpu, requests = [], [], []
    for _ in range(times):
        began_at, computed_s, asked = time.monotonic(), time.process_time(), store.num_requests
        action()
        wall.append(time.monotonic() - began_at)
        cpu.append(time.process_time() - computed_s)
        requests.append(store.num_requests - asked)
        store.advance(1)
    row: Row = {
        "what": what,
        "median_s": statistics.median(wall),
        "worst_s": max(wall),
        "processor_s": statistics.median(cpu),
        "requests": statistics.median(requests),
        "memory_mib": psutil.Process().memory_info().rss / MIB,
    }
    print(
        "{what:<40}{median_s:>9.2f}{worst_s:>9.2f}{processor_s:>11.2f}{requests:>10.0f}"
        "{memory_mib:>8.0f}".format(**row),
        flush=True,
    )
    return row


def measure(num_jobs: int, scale: float, times: int, seed: int) -> list[Row]:
    """Fill the queue, start what fits, and take over from the one before."""
    store, cluster, chance = CountingStore(), big_cluster(scale), random.Random(seed)
    for number in range(num_jobs):
        submit(store, number, chance)
    header = ("median s", "worst s", "processor s", "requests", "MiB")
    print(f"{'':<40}{header[0]:>9}{header[1]:>9}{header[2]:>11}{header[3]:>10}{header[4]:>8}")
    first = controller_of(store, cluster)
    rows = [timed(store, f"adopt {num_jobs} queued jobs", first.take_over)]
    rows.append(timed(store, "the loop that starts what fits", first.step))
    busy = begin(store, cluster)
    rows.append(timed(store, f"the loop that finds {busy} jobs running", first.step))
    rows.append(timed(store, "a loop in which nothing happens", first.step, times))
    second = controller_of(store, cluster)
    rows.append(timed(store, "take over all of it after a restart", second.take_over))
    rows.append(timed(store, "the first loop after that", second.step))
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--scale", type=float, default=1.0, help="of the cluster's 4,096 GPUs")
    parser.add_argument("--loops", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("bench-loop.json"))
    asked = parser.parse_args()
    rows = measure(asked.jobs, asked.scale, asked.loops, asked.seed)
    asked.out.write_text(json.dumps({"jobs": asked.jobs, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
