"""How many workers a fleet has, where, and what each of them needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orchestrator.fleet.actor import Identity
from orchestrator.lifecycle.state import Lending


@dataclass(frozen=True, kw_only=True)
class PoolPlan:
    """How many workers, where, and what each needs.

    Attributes:
        nodes: For each worker that has its place: the Ray node, or "" for any.
        max_workers: With capacity that nobody uses it grows up to these.
        cpus: CPUs of each worker.
        gpus: GPUs of each worker.
        memory_gb: Memory of each worker, in GB of 10^9 bytes; 0 where it isn't counted.
        labels: What the nodes of its workers must be labelled with, as Ray's label selectors have
            it: one value, or "in(A,B)".
        identity: Whom they work for; None in benchmarks without a store.
        place_within_s: Without any worker for that long, the fleet gives up.
        lending: What it may do with room that it was not given.
        tell: Takes a line for the job's history.
    """

    nodes: tuple[str, ...]
    max_workers: int
    cpus: float
    gpus: float = 0.0
    memory_gb: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    identity: Identity | None = None
    place_within_s: float = 300.0
    lending: Callable[[], Lending] = lambda: Lending.MORE
    tell: Callable[[str], None] = lambda _: None
