"""A small cluster that does what the scheduler says, for tests of its decisions."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hypothesis import strategies as st

from orchestrator.scheduling.decide import decide
from orchestrator.scheduling.nodes import NodeCapacity
from orchestrator.scheduling.requests import QueuedJob, RunningJob
from orchestrator.scheduling.snapshot import Action, Preempt, Snapshot, Start


def node(node_id: str, gpus: float, cpus: float = 16) -> NodeCapacity:
    """Return an empty node."""
    return NodeCapacity(node_id=node_id, cpus=cpus, gpus=gpus, free_cpus=cpus, free_gpus=gpus)


def job(job_id: str, gpus: float = 1.0, **changes: object) -> QueuedJob:
    """Return a one-worker job of so many GPUs."""
    request = {"job_id": job_id, "gpus_per_worker": gpus, "submitted_at": float(job_id[-1])}
    return QueuedJob(**(request | changes))  # type: ignore[arg-type]


def gang(job_id: str, num_workers: int, gpus: float = 1.0, **changes: object) -> QueuedJob:
    """Return a job of exactly so many workers."""
    return job(job_id, gpus, num_workers_min=num_workers, num_workers_max=num_workers, **changes)


def starts(actions: Sequence[Action]) -> dict[str, dict[str, int]]:
    """Return what was started, and where."""
    return {a.job_id: dict(a.placement) for a in actions if isinstance(a, Start)}


def victims(actions: Sequence[Action]) -> set[str]:
    """Return what was evicted."""
    return {a.job_id for a in actions if isinstance(a, Preempt)}


class Cluster:
    """Nodes, a queue and running jobs, changed by decisions and by what happens."""

    def __init__(
        self, nodes: Iterable[NodeCapacity], quotas: dict[str, float] | None = None
    ) -> None:
        self.now = 1000.0
        self.snapshot = Snapshot(nodes=tuple(nodes), quotas=quotas or {})
        self.started: list[str] = []

    def submit(self, *jobs: QueuedJob) -> None:
        """Put jobs in the queue."""
        self.snapshot = replace(self.snapshot, queue=(*self.snapshot.queue, *jobs))

    def step(self) -> list[Action]:
        """Decide, and do what was decided; victims go on until `stop_all`."""
        actions = decide(self.snapshot, self.now)
        self.snapshot = self.snapshot.after(actions, self.now)
        self.started += [action.job_id for action in actions if isinstance(action, Start)]
        return actions

    def settle(self) -> None:
        """Decide, and let victims stop, until nothing more changes."""
        while self.step() or any(job.stopping for job in self.snapshot.running):
            self.stop_all()

    def end(self, job_id: str) -> RunningJob:
        """Let a running job end and free what it holds."""
        (job,) = [job for job in self.snapshot.running if job.job_id == job_id]
        self.snapshot = self.snapshot.without({job_id})
        return job

    def stop_all(self) -> None:
        """Let everything that is stopping stop, and queue it again as a victim."""
        stopping = {job.job_id for job in self.snapshot.running if job.stopping}
        self.snapshot = self.snapshot.without(stopping, requeued=stopping)

    @property
    def running(self) -> set[str]:
        """Ids of the jobs that hold capacity."""
        return {job.job_id for job in self.snapshot.running}

    @property
    def queued(self) -> set[str]:
        """Ids of the jobs in the queue."""
        return {job.job_id for job in self.snapshot.queue}


@st.composite
def queued_jobs(draw: st.DrawFn, job_id: str) -> QueuedJob:
    """Draw a job that may or may not fit a small cluster."""
    num_workers = draw(st.integers(1, 4))
    return QueuedJob(
        job_id=job_id,
        queue=draw(st.sampled_from(["default", "team"])),
        priority=draw(st.sampled_from([0, 50, 50, 100])),
        submitted_at=draw(st.sampled_from([0.0, 10.0, 20.0])),
        num_workers_min=num_workers,
        num_workers_max=num_workers + draw(st.integers(0, 2)),
        cpus_per_worker=draw(st.sampled_from([1.0, 2.0, 4.0])),
        gpus_per_worker=draw(st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0])),
        max_runtime_s=draw(st.sampled_from([None, 60.0, 600.0])),
        preemptible=draw(st.booleans()),
        avoided_nodes=draw(st.sampled_from([frozenset[str](), frozenset({"n0"})])),
    )


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """Draw a cluster in the middle of its work, with jobs in its queue."""
    nodes = [
        node(f"n{number}", gpus, cpus)
        for number, (gpus, cpus) in enumerate(
            draw(
                st.lists(
                    st.tuples(st.sampled_from([0, 2, 4, 8]), st.sampled_from([4, 8, 16])),
                    min_size=1,
                    max_size=4,
                )
            )
        )
    ]
    quotas: list[dict[str, float]] = [{}, {"team": 4.0}, {"team": 3.0}]
    cluster = Cluster(nodes, draw(st.sampled_from(quotas)))
    for number in range(draw(st.integers(1, 12))):
        cluster.submit(draw(queued_jobs(f"j{number:02d}")))
        happens = draw(st.sampled_from(["nothing", "nothing", "step", "stop", "end"]))
        if happens in ("step", "stop"):
            cluster.step()
        if happens == "stop":
            cluster.stop_all()
        if happens == "end" and cluster.running:
            cluster.end(draw(st.sampled_from(sorted(cluster.running))))
        cluster.now += draw(st.sampled_from([0.0, 30.0, 300.0]))
    progress_s = draw(st.lists(st.sampled_from([0.0, 5.0, 60.0]), min_size=12, max_size=12))
    nodes_left = list(cluster.snapshot.nodes)
    if len(nodes_left) > 1 and draw(st.booleans()):
        nodes_left.pop()
    cluster.snapshot = replace(
        cluster.snapshot,
        nodes=nodes_left,
        quotas=draw(st.sampled_from([cluster.snapshot.quotas, *quotas])),
        running=[
            replace(job, progress_since_checkpoint_s=lost_s)
            for job, lost_s in zip(cluster.snapshot.running, progress_s, strict=False)
        ],
    )
    return cluster
