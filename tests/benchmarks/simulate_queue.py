"""Play a day of a large cluster against the scheduler: `make bench-queue`.

10,000 jobs of mixed sizes on 4,096 GPUs in nodes of 4, 8 and 16, with the scheduler of
`orchestrator.scheduling.decide` and with plain first come, first served. Everything follows from
the seed. Reports, for each: how much of the GPUs was used while jobs waited, the time until
everything had ended, waiting time by priority, preemptions; and how long one decision takes with
the whole queue before it. A decision waits for nothing, so its time is that of its thread on the
processor, which a busy machine does not change.
"""

import argparse
import heapq
import json
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.scheduling.decide import decide
from orchestrator.scheduling.ledger import Ask, NodeLedger
from orchestrator.scheduling.nodes import NodeCapacity
from orchestrator.scheduling.placement import worker_of
from orchestrator.scheduling.requests import QueuedJob
from orchestrator.scheduling.snapshot import Action, Snapshot, Start

Policy = Callable[[Snapshot, float], Sequence[Action]]

TICK_S = 60.0
STOP_S = 30.0
START_S = 20.0
CHECKPOINT_EVERY_S = 600.0
NODE_MIX = (((96, 8), 400), ((64, 4), 160), ((128, 16), 16))
PRIORITIES = {10: 0.2, 50: 0.6, 80: 0.15, 100: 0.05}
SIZES = {(1, 1): 30, (1, 2): 15, (1, 4): 10, (1, 8): 10, (2, 8): 8, (4, 8): 6, (8, 1): 8,
         (16, 1): 5, (32, 1): 3, (8, 8): 3, (16, 8): 1.5, (32, 8): 0.5}  # fmt: skip


def cluster_nodes(scale: float) -> list[NodeCapacity]:
    """Return the nodes: 4,096 GPUs at scale 1."""
    return [
        NodeCapacity(
            node_id=f"node-{gpus:02d}-{number:04d}",
            cpus=cpus,
            gpus=gpus,
            free_cpus=cpus,
            free_gpus=gpus,
        )
        for (cpus, gpus), count in NODE_MIX
        for number in range(max(1, round(count * scale)))
    ]


@dataclass(kw_only=True)
class Work:
    """A job's own side: what the scheduler is not told.

    Attributes:
        job: What it asks for.
        left_s: Worker-seconds still to do.
        attempt: Number of its current attempt.
        started_at: When that began; None while it waits.
        workers: Workers of that attempt.
        first_started_at: When its first one began.
        num_preemptions: How often it had to make room.
    """

    job: QueuedJob
    left_s: float
    attempt: int = 0
    started_at: float | None = None
    workers: int = 0
    first_started_at: float | None = None
    num_preemptions: int = 0


def workload(num_jobs: int, seed: int) -> list[Work]:
    """Return jobs of mixed sizes: half there at once, half over a day."""
    rng = random.Random(seed)
    works = []
    for number in range(num_jobs):
        workers, gpus = rng.choices(list(SIZES), weights=list(SIZES.values()))[0]
        is_fleet = workers > 1 and gpus == 1
        runtime_s = min(max(rng.lognormvariate(8.6, 1.1), 120.0), 86_400.0)
        limit_s = runtime_s * rng.uniform(1.1, 3.0) + 120.0 if rng.random() < 0.7 else None
        job = QueuedJob(
            job_id=f"job-{number:05d}",
            priority=rng.choices(list(PRIORITIES), weights=list(PRIORITIES.values()))[0],
            submitted_at=0.0 if number < num_jobs // 2 else rng.uniform(0.0, 86_400.0),
            num_workers_min=max(1, workers // 2) if is_fleet else workers,
            num_workers_max=workers,
            cpus_per_worker=4.0 * gpus,
            gpus_per_worker=float(gpus),
            max_runtime_s=None if limit_s is None else limit_s * (2.0 if is_fleet else 1.0),
            preemptible=rng.random() < 0.8,
        )
        works.append(Work(job=job, left_s=runtime_s * workers))
    return works


def first_come_first_served(snapshot: Snapshot, now: float) -> list[Action]:
    """Start jobs strictly in the order of their arrival; the first that doesn't fit stops all."""
    nodes = NodeLedger(snapshot.nodes, snapshot.running)
    actions: list[Action] = []
    for job in sorted(snapshot.queue, key=lambda job: (job.submitted_at, job.job_id)):
        ask = Ask(worker_of(job), frozenset(), passes_nodes=True, passes_quota=True)
        workers = min(job.num_workers_max, nodes.num_now(ask))
        if workers < job.num_workers_min:
            break
        actions.append(Start(job.job_id, nodes.take_now(ask, workers)))
    return actions


@dataclass
class Simulation:
    """The cluster over time under one policy.

    Attributes:
        policy: Who decides.
        works: All jobs, by id.
        snapshot: What the policy sees.
        now: Seconds since the begin.
        events: Heap of (time, what, job, attempt).
        decision_s: Processor seconds of each decision, with the length of the queue.
        used_gpu_s: GPU-seconds held while the queue was not empty.
        busy_s: Seconds during which the queue was not empty.
    """

    policy: Policy
    works: dict[str, Work]
    snapshot: Snapshot
    now: float = 0.0
    events: list[tuple[float, str, str, int]] = field(default_factory=list)
    decision_s: list[tuple[int, float]] = field(default_factory=list)
    used_gpu_s: float = 0.0
    busy_s: float = 0.0
    num_gpu_s_done: float = 0.0

    def run(self) -> None:
        """Play until everything has ended."""
        for work in self.works.values():
            heapq.heappush(self.events, (work.job.submitted_at, "arrive", work.job.job_id, 0))
        while self.events:
            self._advance(max(self.events[0][0], self.now))
            self._happen()
            self._decide()

    def _advance(self, until: float) -> None:
        ticks = -(-(until - self.now) // TICK_S)
        passed_s = ticks * TICK_S
        if self.snapshot.queue:
            self.busy_s += passed_s
            self.used_gpu_s += passed_s * sum(job.gpus for job in self.snapshot.running)
        self.now += passed_s

    def _happen(self) -> None:
        arrived: list[QueuedJob] = []
        gone: set[str] = set()
        requeued: set[str] = set()
        while self.events and self.events[0][0] <= self.now:
            _, what, job_id, attempt = heapq.heappop(self.events)
            work = self.works[job_id]
            if what == "arrive":
                arrived.append(work.job)
            elif work.attempt == attempt:
                gone.add(job_id)
                requeued |= {job_id} if what == "stop" else set()
        self.snapshot = self.snapshot.without(gone, requeued)
        self.snapshot = replace(self.snapshot, queue=[*self.snapshot.queue, *arrived])

    def _decide(self) -> None:
        self.snapshot = replace(
            self.snapshot,
            running=[
                replace(
                    job,
                    progress_since_checkpoint_s=(self.now - job.started_at) % CHECKPOINT_EVERY_S,
                )
                for job in self.snapshot.running
            ],
        )
        num_queued = len(self.snapshot.queue)
        began = time.thread_time()
        actions = self.policy(self.snapshot, self.now)
        self.decision_s.append((num_queued, time.thread_time() - began))
        self.snapshot = self.snapshot.after(actions, self.now)
        for action in actions:
            work = self.works[action.job_id]
            if isinstance(action, Start):
                self._start(work, sum(action.placement.values()))
            else:
                self._stop(work)

    def _start(self, work: Work, workers: int) -> None:
        work.attempt += 1
        work.started_at, work.workers = self.now, workers
        if work.first_started_at is None:
            work.first_started_at = self.now
        ends_at = self.now + START_S + work.left_s / workers
        heapq.heappush(self.events, (ends_at, "end", work.job.job_id, work.attempt))

    def _stop(self, work: Work) -> None:
        """Let a victim save its work and stop; nothing is computed twice."""
        assert work.started_at is not None
        worked_s = max(0.0, self.now - work.started_at - START_S)
        work.left_s = max(work.left_s - worked_s * work.workers, 1.0)
        work.num_preemptions += 1
        work.attempt += 1
        heapq.heappush(self.events, (self.now + STOP_S, "stop", work.job.job_id, work.attempt))


def report(simulation: Simulation) -> dict[str, Any]:
    """Return the figures of a finished simulation."""
    num_gpus = sum(node.gpus for node in simulation.snapshot.nodes)
    waits: dict[int, list[float]] = defaultdict(list)
    for work in simulation.works.values():
        assert work.first_started_at is not None, work.job.job_id
        waits[work.job.priority].append(work.first_started_at - work.job.submitted_at)
    times_ms = [1e3 * seconds for _, seconds in simulation.decision_s]
    return {
        "utilisation": simulation.used_gpu_s / (simulation.busy_s * num_gpus),
        "makespan_h": simulation.now / 3600,
        "preemptions": sum(work.num_preemptions for work in simulation.works.values()),
        "decisions": len(times_ms),
        "decision_ms_median": statistics.median(times_ms),
        "decision_ms_p95": quantile(times_ms, 0.95),
        "decision_ms_max": max(times_ms),
        "wait_h": {
            str(priority): {
                "jobs": len(waited),
                "mean": statistics.fmean(waited) / 3600,
                "median": statistics.median(waited) / 3600,
                "p95": quantile(waited, 0.95) / 3600,
            }
            for priority, waited in sorted(waits.items(), reverse=True)
        },
    }


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def time_full_queue(nodes: Sequence[NodeCapacity], num_jobs: int, seed: int) -> dict[str, float]:
    """Return how long a decision takes with the whole queue waiting before a full cluster."""
    jobs = [replace(work.job, submitted_at=0.0) for work in workload(num_jobs, seed)]
    snapshot = Snapshot(queue=jobs, nodes=nodes)
    began = time.thread_time()
    first = decide(snapshot, 0.0)
    first_s = time.thread_time() - began
    snapshot = snapshot.after(first, 0.0)
    steady_s = []
    running = list(snapshot.running)
    for number in range(21):
        # One job has ended, so there is something to decide.
        ended = snapshot.without({running[number].job_id})
        began = time.thread_time()
        decide(ended, 60.0)
        steady_s.append(time.thread_time() - began)
    return {
        "queued": len(snapshot.queue),
        "first_decision_ms": 1e3 * first_s,
        "decision_ms_median": 1e3 * statistics.median(steady_s),
        "decision_ms_max": 1e3 * max(steady_s),
    }


def print_table(results: dict[str, Any]) -> None:
    """Print the figures side by side."""
    print(f"{'':34}{'ddpmctl':>12}{'FCFS':>12}")
    ours, fcfs = results["ddpmctl"], results["fcfs"]
    rows = [
        ("GPUs in use while jobs wait", "utilisation", 100.0, "%"),
        ("all done after", "makespan_h", 1.0, "h"),
        ("preemptions", "preemptions", 1.0, ""),
        ("decisions", "decisions", 1.0, ""),
        ("a decision, median", "decision_ms_median", 1.0, "ms"),
        ("a decision, 95 %", "decision_ms_p95", 1.0, "ms"),
        ("a decision, longest", "decision_ms_max", 1.0, "ms"),
    ]
    for title, key, factor, unit in rows:
        figures = "".join(f"{factor * side[key]:>9.1f} {unit:<2}" for side in (ours, fcfs))
        print(f"{title:<34}{figures}")
    for priority in ours["wait_h"]:
        for what in ("mean", "median", "p95"):
            figures = "".join(f"{s['wait_h'][priority][what]:>9.2f} h " for s in (ours, fcfs))
            print(f"{f'wait at priority {priority}, {what}':<34}{figures}")
    full = results["full_queue"]
    print(
        f"with {full['queued']} queued: the first decision {full['first_decision_ms']:.0f} ms, "
        f"then {full['decision_ms_median']:.1f} ms (median), {full['decision_ms_max']:.1f} ms (max)"
    )


def main() -> None:
    """Run both policies on the same jobs, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--scale", type=float, default=1.0, help="1 is 4,096 GPUs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("bench-queue.json"))
    options = parser.parse_args()
    nodes = cluster_nodes(options.scale)
    results: dict[str, Any] = {
        "jobs": options.jobs,
        "gpus": sum(node.gpus for node in nodes),
        "nodes": len(nodes),
        "seed": options.seed,
        "full_queue": time_full_queue(nodes, options.jobs, options.seed),
    }
    policies: dict[str, Policy] = {"ddpmctl": decide, "fcfs": first_come_first_served}
    for name, policy in policies.items():
        works = {work.job.job_id: work for work in workload(options.jobs, options.seed)}
        simulation = Simulation(policy, works, Snapshot(nodes=nodes))
        simulation.run()
        results[name] = report(simulation)
    print(f"{options.jobs} jobs, {results['gpus']} GPUs on {len(nodes)} nodes")
    print_table(results)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
