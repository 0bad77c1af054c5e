"""What limits a fleet's commits, and a job of 1,000 workers: `make bench-commits`.

Writers in processes of their own make real shard commits (data, then a put-if-absent that names it)
against a SeaweedFS of its own, no Ray: how many a second, and whose processor time a commit costs.
Then one step of the orchestrator's loop that follows a job of 1,000 workers, each of which stands
in the heartbeat and has registered. Prints a table and writes JSON.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ddpm.config import TrainingConfig
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.client.submit import submit_job
from orchestrator.jobs.heartbeat import HEARTBEAT, Heartbeat, WorkerReport
from orchestrator.jobs.processes import REGISTERED_PROCESS, RegisteredProcess
from orchestrator.jobs.units import Shard
from orchestrator.lifecycle.phase import Phase
from orchestrator.sampling.drawing import DrawnShard
from orchestrator.specs.resources import TrainResources
from orchestrator.specs.sections import DatasetSpec
from orchestrator.specs.train import TrainJob
from orchestrator.store.keys import JobPaths
from orchestrator.store.s3_store import open_store
from tests.benchmarks.bench_many_jobs import seaweed
from tests.benchmarks.fake_work import FakeSetup
from tests.support.world import World

IMAGES = 100
WRITERS = (1, 2, 4, 8, 16)
Row = dict[str, Any]


@dataclass(frozen=True)
class Share:
    """Shards of one writer."""

    store_uri: str
    job_id: str
    first: int
    count: int


def write(share: Share) -> float:
    """Commit shards; return the processor time that it took, in seconds."""
    work = FakeSetup(share.store_uri, share.job_id, IMAGES).open(f"writer-{share.first}", None)
    began_s = time.process_time()
    for index in range(share.first, share.first + share.count):
        shard = Shard(index, index * IMAGES, (index + 1) * IMAGES)
        work.commit(DrawnShard(shard=shard, pixels=work.pixels, frames=None, seconds=0.0))
    return time.process_time() - began_s


def store_processes() -> list[psutil.Process]:
    """Return the store's processes."""
    mine = psutil.Process().children(recursive=True)
    everywhere = mine or list(psutil.process_iter())
    port = os.environ["AWS_ENDPOINT_URL_S3"].rpartition(":")[2]
    return [process for process in everywhere if port in " ".join(process.cmdline())]


def processor_s(processes: list[psutil.Process]) -> float:
    """Return the processor time that processes have used."""
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system for one in times)


def commits(num_writers: int, count: int) -> Row:
    """Have writers commit shards side by side."""
    uri = os.environ["DDPMCTL_STORE"]
    job_id, each = f"fleet-{num_writers}", count // num_writers
    shares = [Share(uri, job_id, number * each, each) for number in range(num_writers)]
    store = store_processes()
    with multiprocessing.get_context("spawn").Pool(num_writers) as pool:
        pool.map(abs, range(num_writers))  # started and imported
        pool.map(write, [Share(uri, f"warm-{num_writers}", n, 1) for n in range(num_writers)])
        before_s, began_at = processor_s(store), time.monotonic()
        spent = pool.map(write, shares, chunksize=1)
        took_s = time.monotonic() - began_at
    stored = sum(1 for _ in SampleShards(open_store(uri), JobPaths(job_id)).indices())
    assert stored == each * num_writers
    return {
        "what": f"{num_writers} writers",
        "per_s": stored / took_s,
        "writers_ms": 1000 * sum(spent) / stored,
        "store_ms": 1000 * (processor_s(store) - before_s) / stored,
    }


def big_heartbeat(num_workers: int) -> Heartbeat:
    """Return what the driver of a large fleet says."""
    workers = tuple(
        WorkerReport(rank=rank, node_id=f"{rank:056x}", pid=rank, phase=Phase.RUNNING, shard=rank,
                     step=10, num_steps=50)
        for rank in range(num_workers)
    )  # fmt: skip
    return Heartbeat(phase=Phase.RUNNING, done=1, total=10, unit="images", workers=workers)


def following(num_workers: int, times: int) -> Row:
    """Take the loop's step over one job of so many workers, on a store in memory."""
    world = World()
    world.cluster.cpus = num_workers
    spec = TrainJob(
        kind="train",
        name="large",
        dataset=DatasetSpec(source="digits"),
        training=TrainingConfig(num_steps=10, global_batch_size=num_workers),
        resources=TrainResources(num_workers=num_workers, cpus_per_worker=1),
    )
    job_id = submit_job(world.store, spec).job_id
    world.step()
    world.begin(job_id)
    attempt = JobPaths(job_id).attempt(1)
    for rank in range(num_workers):
        process = RegisteredProcess(f"worker-{rank}", 1000 + rank, 1.0, "b", "n1", "h")
        key = f"{attempt.processes}worker-{rank}-{1000 + rank}.json"
        world.store.put(key, REGISTERED_PROCESS.encode(process))
        world.cluster.running.add(1000 + rank)
    body = HEARTBEAT.encode(big_heartbeat(num_workers))
    world.store.put(attempt.heartbeat, body)
    world.step(2)
    assert world.state(job_id) == "RUNNING"
    steps, writing = [], []
    for _ in range(times):
        began_s = time.process_time()
        world.step()
        steps.append(time.process_time() - began_s)
        began_s = time.process_time()
        HEARTBEAT.encode(big_heartbeat(num_workers))
        writing.append(time.process_time() - began_s)
    return {
        "what": f"a job of {num_workers} workers",
        "loop_ms": 1000 * statistics.median(steps),
        "heartbeat_ms": 1000 * statistics.median(writing),
        "heartbeat_bytes": len(body),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=800)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 100, 1000])
    parser.add_argument("--out", type=Path, default=Path("bench-commits.json"))
    asked = parser.parse_args()
    rows = [following(number, 20) for number in asked.workers]
    for row in rows:
        told = "{what:<24}{loop_ms:>8.1f} ms a loop{heartbeat_ms:>8.1f} ms and"
        print((told + "{heartbeat_bytes:>8} bytes a heartbeat").format(**row), flush=True)
    with tempfile.TemporaryDirectory() as folder, seaweed(Path(folder)):
        for number in WRITERS:
            rows.append(row := commits(number, asked.shards))
            told = "{what:<24}{per_s:>8.0f} commits/s; ms of processors for each: "
            told += "the writer's{writers_ms:>6.1f}, the store's{store_ms:>6.1f}"
            print(told.format(**row), flush=True)
    asked.out.write_text(json.dumps({"cpus": os.cpu_count(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
