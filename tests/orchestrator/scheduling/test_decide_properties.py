"""The queue is fair, never over capacity, and never evicts for nothing, whatever happens."""

from collections import Counter
from dataclasses import replace
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.scheduling.decide import decide
from orchestrator.scheduling.requests import QueuedJob
from orchestrator.scheduling.snapshot import Preempt, Snapshot
from tests.support.examples import examples
from tests.support.scheduling import Cluster, clusters, queued_jobs, starts, victims

thorough = settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def fits_empty(queued: QueuedJob, snapshot: Snapshot) -> bool:
    """Return, by counting, whether a job fits the cluster and its quota with nothing else on."""
    gpus = queued.gpus_per_worker
    workers = sum(
        min(
            int(node.cpus // queued.cpus_per_worker),
            int(node.gpus // gpus) if gpus else 10**6,
        )
        for node in snapshot.nodes
    )
    quota = snapshot.quotas.get(queued.queue, float("inf"))
    return workers >= queued.num_workers_min and queued.num_workers_min * gpus <= quota


@thorough
@given(cluster=clusters())
def test_nothing_is_ever_over_capacity(cluster: Cluster) -> None:
    """Ray would leave the workers of such a gang pending, holding what they got."""
    before = {queued.job_id: queued for queued in cluster.snapshot.queue}
    actions = cluster.step()
    for capacity in cluster.snapshot.nodes:
        assert capacity.free_cpus >= 0
        assert capacity.free_gpus >= 0
    for job_id, placement in starts(actions).items():
        asked = before[job_id]
        assert asked.num_workers_min <= sum(placement.values()) <= asked.num_workers_max
        assert all(workers > 0 for workers in placement.values())
    used: Counter[str] = Counter()
    for running in cluster.snapshot.running:
        used[running.queue] += running.gpus  # type: ignore[assignment]
    for job_id in starts(actions):
        queue, gpus = before[job_id].queue, before[job_id].gpus_per_worker
        assert gpus == 0 or used[queue] <= cluster.snapshot.quotas.get(queue, float("inf"))


@thorough
@given(cluster=clusters())
def test_decision_is_idempotent_on_its_own_outcome(cluster: Cluster) -> None:
    """The loop comes round every second; what was asked for must not be asked for again."""
    actions = cluster.step()
    assert decide(cluster.snapshot, cluster.now) == []
    named = Counter(action.job_id for action in actions)
    assert all(count == 1 for count in named.values())


@thorough
@given(cluster=clusters())
def test_eviction_makes_a_placement_possible(cluster: Cluster) -> None:
    """Work that is thrown away for a job that then can't start is lost twice."""
    ranks = {queued.job_id: queued for queued in cluster.snapshot.queue}
    running = {one.job_id: one for one in cluster.snapshot.running}
    actions = cluster.step()
    for action in actions:
        if isinstance(action, Preempt):
            victim = running[action.job_id]
            assert victim.preemptible
            assert not victim.stopping
            assert victim.priority < ranks[action.for_job].priority
    cluster.stop_all()
    cluster.step()
    for action in actions:
        if isinstance(action, Preempt):
            assert action.for_job in cluster.running


@thorough
@given(cluster=clusters(), newcomer=queued_jobs("x0"))
def test_no_victim_could_have_been_spared(cluster: Cluster, newcomer: QueuedJob) -> None:
    """The fewest victims: with any one of them left alone the job would not fit."""
    cluster.snapshot = replace(
        cluster.snapshot,
        queue=[replace(newcomer, priority=101, num_workers_max=newcomer.num_workers_min)],
        running=[one for one in cluster.snapshot.running if not one.stopping],
    )
    for spared in victims(decide(cluster.snapshot, cluster.now)):
        running = [
            replace(one, preemptible=one.preemptible and one.job_id != spared)
            for one in cluster.snapshot.running
        ]
        chosen = victims(decide(cluster.snapshot, cluster.now)) - {spared}
        without = replace(
            cluster.snapshot,
            running=[replace(one, preemptible=one.job_id in chosen) for one in running],
        )
        assert decide(without, cluster.now) == []


@thorough
@given(cluster=clusters(), order=st.randoms(use_true_random=False))
def test_every_job_that_fits_starts_once_arrivals_stop(cluster: Cluster, order: Random) -> None:
    """Backfill, quotas and evictions must not starve anybody."""
    fitting = {q.job_id for q in cluster.snapshot.queue if fits_empty(q, cluster.snapshot)}
    cluster.started.clear()
    for _ in range(200):
        cluster.settle()
        cluster.stop_all()
        if not cluster.running:
            break
        cluster.end(order.choice(sorted(cluster.running)))
        cluster.now += order.choice([0.0, 50.0, 1000.0])
    assert fitting <= set(cluster.started)
    assert not cluster.queued & fitting


@thorough
@given(cluster=clusters(), order=st.randoms(use_true_random=False))
def test_decision_does_not_depend_on_the_order_of_its_input(
    cluster: Cluster, order: Random
) -> None:
    """A listing of the store has an order of its own; two orchestrators must agree."""
    snapshot = cluster.snapshot
    mixed = replace(
        snapshot,
        queue=order.sample(list(snapshot.queue), len(snapshot.queue)),
        running=order.sample(list(snapshot.running), len(snapshot.running)),
        nodes=order.sample(list(snapshot.nodes), len(snapshot.nodes)),
    )
    assert decide(mixed, cluster.now) == decide(snapshot, cluster.now)


@thorough
@given(cluster=clusters(), twin=queued_jobs("x0"))
def test_first_come_is_first_served_among_equals(cluster: Cluster, twin: QueuedJob) -> None:
    """Of two jobs that ask for the same, the later one never starts alone."""
    cluster.submit(replace(twin, submitted_at=5.0), replace(twin, job_id="x1", submitted_at=6.0))
    cluster.step()
    assert "x0" in cluster.running or "x1" not in cluster.running
