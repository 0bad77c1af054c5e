"""What becomes of a job that was just submitted, by the nodes that the orchestrator saw last.

A count that needs no scheduler, so that `submit` loads none; `explain` says the rest.
"""

from orchestrator.counts import counted
from orchestrator.errors import StoredFormError
from orchestrator.jobs.nodes import NODES, NodeEntry, NodeList
from orchestrator.jobs.queue import read_quotas
from orchestrator.scheduling.matching import why_unsuited
from orchestrator.scheduling.nodes import NodeCapacity
from orchestrator.scheduling.promised import promised_nodes
from orchestrator.scheduling.requests import JobRequest
from orchestrator.scheduling.verdict import Verdict
from orchestrator.specs.group import GroupJob
from orchestrator.specs.job import Job
from orchestrator.store import keys
from orchestrator.store.objects import ObjectStore

_NEARLY = 1e-9


def outlook_of(store: ObjectStore, spec: Job | GroupJob) -> list[str]:
    """Return a line for what does not fit the nodes that are there: "never: ...".

    What "auto" stands for is settled later, so that it fits; it counts here with the least that it
    may become. Where no orchestrator has looked yet, nothing is said.

    Args:
        store: Where the job is.
        spec: What is asked; of a group, all of its jobs are looked at.
    """
    try:
        cluster, quotas = NODES.value(store, keys.NODES), read_quotas(store)
    except StoredFormError as error:  # the job is queued all the same
        return [f"whether it fits is unknown: {error}"]
    if cluster is None:
        return []
    jobs = [("", spec)] if isinstance(spec, Job) else [(c.step, c.spec) for c in spec.children]
    steps: dict[str, str] = {}
    for step, job in jobs:
        steps.setdefault(_line(_asked(job, cluster), cluster, quotas), step)
    return [f"{line} (step {step})" if step else line for line, step in steps.items() if line]


def _line(asked: JobRequest, cluster: NodeList, quotas: dict[str, float]) -> str:
    needed = asked.num_workers_min
    gpus, quota = needed * asked.gpus_per_worker, quotas.get(asked.queue)
    if quota is not None and gpus > quota + _NEARLY:
        return (
            f"{Verdict.NEVER}: it needs {counted(gpus, 'GPU')} and queue {asked.queue} may hold "
            f"{quota:g}"
        )
    there = [_capacity(node) for node in cluster.nodes]
    here = _room(asked, there)
    if here >= needed or not (there or cluster.types):
        return ""
    ever = _room(asked, [*there, *promised_nodes(cluster.types, there)])
    room = f"there is room for {here} of its {counted(needed, 'worker')}"
    if ever >= needed:
        types = ", ".join(kind.name for kind in cluster.types)
        return f"{Verdict.WAITS_FOR_NODES}: {room}; the autoscaler may start more ({types})"
    return (
        f"{Verdict.NEVER}: even with nothing else running the cluster has room for {ever} of its "
        f"{counted(needed, 'worker')}; `ddpmctl explain` says what it lacks"
    )


def _room(asked: JobRequest, nodes: list[NodeCapacity]) -> int:
    """Return how many workers the empty nodes take, on one type of GPU where it may mix none."""
    by_type: dict[str, int] = {}
    for node in nodes:
        if not why_unsuited(asked, node):
            kind = node.accelerator if asked.is_of_one_accelerator and asked.gpus_per_worker else ""
            by_type[kind] = by_type.get(kind, 0) + _workers_on(asked, node)
    return max(by_type.values(), default=0)


def _workers_on(asked: JobRequest, node: NodeCapacity) -> int:
    pairs = (
        (node.cpus, asked.cpus_per_worker),
        (node.gpus, asked.gpus_per_worker),
        (node.memory_gb, asked.memory_gb_per_worker),
    )
    fitting = [int(has / asks + _NEARLY) for has, asks in pairs if asks]
    return min(fitting, default=asked.num_workers_max)


def _capacity(node: NodeEntry) -> NodeCapacity:
    return NodeCapacity(
        node_id=node.node_id,
        cpus=node.cpus,
        gpus=node.gpus,
        free_cpus=node.cpus,
        free_gpus=node.gpus,
        memory_gb=node.memory_gb,
        accelerator=node.accelerator,
        labels=node.labels,
    )


def _asked(job: Job, cluster: NodeList) -> JobRequest:
    asks, workers = job.resources, job.num_workers
    gpus, cpus = asks.gpus_per_worker, asks.cpus_per_worker
    if gpus == "auto":
        there = [*(node.gpus for node in cluster.nodes), *(kind.gpus for kind in cluster.types)]
        gpus = 1 if asks.accelerators or any(count >= 1 for count in there) else 0
    return JobRequest(
        job_id="",
        queue=job.queue,
        num_workers_min=workers.min,
        num_workers_max=workers.max,
        cpus_per_worker=1 if cpus == "auto" else cpus,
        gpus_per_worker=float(gpus),
        memory_gb_per_worker=asks.memory_gb or 0.0,
        accelerators=asks.accelerators,
        is_of_one_accelerator=job.is_of_one_accelerator,
        labels=tuple(sorted(asks.labels.items())),
    )
