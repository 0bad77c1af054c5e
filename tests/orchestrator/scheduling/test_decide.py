"""The queue's rules one by one: priority, gangs, backfill, quotas, and who makes room."""

from dataclasses import replace

import pytest

from orchestrator.scheduling.decide import decide
from orchestrator.scheduling.placement import gpu_slots, to_units
from orchestrator.scheduling.snapshot import Preempt, Snapshot, started_job
from tests.support.scheduling import Cluster, gang, job, node, starts, victims


def test_gang_starts_whole_or_not_at_all() -> None:
    """Half a gang holds GPUs and computes nothing."""
    cluster = Cluster([node("a", 4), node("b", 4)])
    cluster.submit(job("small-0", gpus=3), gang("gang-1", 4, gpus=2))
    assert starts(cluster.step()) == {"small-0": {"a": 1}}
    cluster.end("small-0")
    assert starts(cluster.step()) == {"gang-1": {"a": 2, "b": 2}}


def test_fleet_takes_as_many_workers_as_fit() -> None:
    """A fleet of 2 to 16 on 6 free GPUs is a fleet of 6."""
    cluster = Cluster([node("a", 4), node("b", 2)])
    cluster.submit(job("fleet-0", num_workers_min=2, num_workers_max=16))
    assert starts(cluster.step()) == {"fleet-0": {"a": 4, "b": 2}}


def test_small_job_goes_where_it_leaves_the_least_over() -> None:
    """Scattering small jobs leaves no node whole for a gang."""
    cluster = Cluster([node("a", 8), node("b", 2)])
    cluster.submit(job("small-0", gpus=2))
    assert starts(cluster.step()) == {"small-0": {"b": 1}}


def test_job_without_gpus_leaves_the_gpu_nodes_alone() -> None:
    """CPUs beside free GPUs are what a GPU job needs to start."""
    cluster = Cluster([node("a", 8, cpus=64), node("b", 0, cpus=64)])
    cluster.submit(job("cpu-0", gpus=0, cpus_per_worker=16.0))
    assert starts(cluster.step()) == {"cpu-0": {"b": 1}}


def test_highest_priority_is_served_first_and_a_victim_first_in_its_class() -> None:
    """A third job ran instead of the one that had made room (determined #3340)."""
    cluster = Cluster([node("a", 1)])
    cluster.submit(
        job("early-0"),
        job("victim-9", was_preempted=True),
        job("urgent-5", priority=90, max_runtime_s=10.0),
    )
    for expected in ("urgent-5", "victim-9", "early-0"):
        assert list(starts(cluster.step())) == [expected]
        cluster.end(expected)


def test_determined_3340() -> None:
    """A newcomer evicts the younger of two equals, which runs again before any third one."""
    cluster = Cluster([node("a", 1), node("b", 1)])
    cluster.submit(job("older-0"), job("younger-1"))
    assert set(starts(cluster.step())) == {"older-0", "younger-1"}
    cluster.submit(job("third-2"), job("urgent-3", priority=90))
    assert cluster.step() == [Preempt("younger-1", for_job="urgent-3")]
    cluster.stop_all()
    assert list(starts(cluster.step())) == ["urgent-3"]
    cluster.end("urgent-3")
    assert list(starts(cluster.step())) == ["younger-1"]
    assert cluster.queued == {"third-2"}


def test_equals_never_swap() -> None:
    """Two jobs of one priority that evict each other would both get nowhere."""
    cluster = Cluster([node("a", 1)])
    cluster.submit(job("first-0"))
    cluster.step()
    cluster.submit(job("second-1", was_preempted=True))
    assert cluster.step() == []


@pytest.mark.parametrize(
    ("progress_s", "victim"),
    [((5.0, 60.0), "one-0"), ((60.0, 5.0), "two-1"), ((5.0, 5.0), "two-1")],
)
def test_victim_is_the_one_that_loses_least(progress_s: tuple[float, float], victim: str) -> None:
    """What was computed since the last checkpoint is computed again."""
    cluster = Cluster([node("a", 1), node("b", 1)])
    cluster.submit(job("one-0"), job("two-1"))
    cluster.step()
    cluster.snapshot = replace(
        cluster.snapshot,
        running=[
            replace(running, progress_since_checkpoint_s=progress_s[running.job_id == "two-1"])
            for running in cluster.snapshot.running
        ],
    )
    cluster.submit(job("urgent-2", priority=90))
    assert victims(cluster.step()) == {victim}


def test_one_large_victim_is_taken_rather_than_four_small_ones() -> None:
    """Each victim is a checkpoint, a stop and a start."""
    cluster = Cluster([node("a", 4), node("b", 4)])
    cluster.submit(*(job(f"small-{n}") for n in range(4)), job("large-4", gpus=4))
    cluster.step()
    cluster.submit(job("urgent-5", gpus=4, priority=90))
    assert victims(cluster.step()) == {"large-4"}


def test_lowest_priority_makes_room_first() -> None:
    """Otherwise the victim itself would evict the one that was spared."""
    cluster = Cluster([node("a", 4), node("b", 4)])
    cluster.submit(
        *(job(f"low-{n}", gpus=2, priority=10) for n in range(2)), job("middle-4", gpus=4)
    )
    cluster.step()
    cluster.submit(job("urgent-5", gpus=4, priority=90))
    assert victims(cluster.step()) == {"low-0", "low-1"}


def test_job_that_is_not_preemptible_is_left_alone() -> None:
    """The user said so."""
    cluster = Cluster([node("a", 1)])
    cluster.submit(job("fixed-0", preemptible=False))
    cluster.step()
    cluster.submit(job("urgent-1", priority=100))
    assert cluster.step() == []


def test_capacity_that_is_being_freed_is_kept_for_whom_it_is_freed() -> None:
    """A small job that slips in would make the eviction vain, and cause the next one."""
    cluster = Cluster([node("a", 4)])
    cluster.submit(job("low-0", gpus=3, priority=10))
    cluster.step()
    cluster.submit(job("urgent-1", gpus=4, priority=90), job("small-2", gpus=1))
    assert victims(cluster.step()) == {"low-0"}
    assert "small-2" in cluster.queued
    cluster.submit(job("small-3", gpus=1, max_runtime_s=1.0))
    assert cluster.step() == []
    cluster.stop_all()
    assert list(starts(cluster.step())) == ["urgent-1"]


def test_backfill_ends_before_the_reservation() -> None:
    """A short job may use the gap; a long one would keep the first in line waiting."""
    cluster = Cluster([node("a", 4)])
    cluster.submit(job("running-0", gpus=2, max_runtime_s=100.0, preemptible=False))
    cluster.step()
    cluster.submit(
        job("head-1", gpus=4),
        job("endless-2", gpus=1),
        job("long-3", gpus=1, max_runtime_s=101.0),
        job("short-4", gpus=1, max_runtime_s=100.0),
    )
    assert list(starts(cluster.step())) == ["short-4"]
    cluster.now += 100.0
    cluster.end("running-0")
    cluster.end("short-4")
    assert list(starts(cluster.step())) == ["head-1"]


def test_backfill_of_lower_priority_gives_way_when_the_time_has_come() -> None:
    """An idle GPU helps nobody: a preemptible job may use it until the head can start."""
    cluster = Cluster([node("a", 4)])
    cluster.submit(job("running-0", gpus=2, preemptible=False))
    cluster.step()
    cluster.submit(job("head-1", gpus=4), job("filler-2", gpus=1, priority=10))
    assert list(starts(cluster.step())) == ["filler-2"]
    cluster.end("running-0")
    assert cluster.step() == [Preempt("filler-2", for_job="head-1")]


def test_what_the_reservation_leaves_over_is_free_for_all() -> None:
    """A gang that waits for two nodes must not idle the rest of the cluster."""
    cluster = Cluster([node("a", 4), node("b", 4), node("c", 2)])
    cluster.submit(*(job(f"running-{n}", gpus=3, preemptible=False) for n in range(2)))
    cluster.step()
    cluster.submit(gang("head-2", 2, gpus=4), job("whole-3", gpus=4), job("half-4", gpus=2))
    (started,) = starts(cluster.step()).items()
    assert started[0] == "half-4"
    cluster.end("running-0")
    cluster.end("running-1")
    assert set(starts(cluster.step())) == {"head-2"}


def test_head_of_the_line_is_not_starved_by_a_stream_of_short_jobs() -> None:
    """With backfill alone, without a reservation, a large job waits for ever (Ray #28160)."""
    cluster = Cluster([node("a", 4)])
    cluster.submit(*(job(f"first-{n}", max_runtime_s=100.0 + n) for n in range(4)))
    cluster.step()
    cluster.submit(job("head-4", gpus=4))
    began = cluster.now
    for tick in range(200):
        cluster.submit(job(f"stream{tick}-5", max_runtime_s=40.0))
        cluster.now += 1.0
        for running in list(cluster.snapshot.running):
            latest = running.latest_end_at
            if latest is not None and latest <= cluster.now:
                cluster.end(running.job_id)
        cluster.step()
        if "head-4" in cluster.running:
            break
    assert cluster.now - began <= 103.0


def test_quota_holds_up_its_own_queue_only() -> None:
    """A team over its share waits; the others don't."""
    cluster = Cluster([node("a", 8)], quotas={"team": 2.0})
    cluster.submit(
        job("team-0", gpus=2, queue="team"),
        job("team-1", gpus=2, queue="team", priority=90, preemptible=False),
        job("other-2", gpus=4),
    )
    assert set(starts(cluster.step())) == {"team-1", "other-2"}
    assert cluster.queued == {"team-0"}


def test_quota_is_made_room_in_by_evicting_from_its_own_queue() -> None:
    """Evicting from another queue would not help."""
    cluster = Cluster([node("a", 8)], quotas={"team": 2.0})
    cluster.submit(job("team-0", gpus=2, queue="team", priority=20), job("other-1", priority=10))
    cluster.step()
    cluster.submit(job("urgent-2", queue="team", priority=90))
    assert victims(cluster.step()) == {"team-0"}


def test_job_over_its_whole_quota_holds_up_nobody() -> None:
    """It will never start; its queue must go on."""
    cluster = Cluster([node("a", 8)], quotas={"team": 2.0})
    cluster.submit(job("huge-0", gpus=4, queue="team", priority=90), job("fine-1", queue="team"))
    assert list(starts(cluster.step())) == ["fine-1"]


def test_job_that_fits_no_cluster_holds_up_nobody() -> None:
    """The explanation says never; a reservation for it would last for ever."""
    cluster = Cluster([node("a", 2)])
    cluster.submit(job("huge-0", gpus=4, priority=90), job("fine-1", gpus=2))
    assert list(starts(cluster.step())) == ["fine-1"]


def test_waiting_and_backing_off_jobs_hold_up_nobody() -> None:
    """They could not use the capacity if they had it."""
    cluster = Cluster([node("a", 1)])
    cluster.submit(
        job("model-0", priority=90, waits_for="job digits"),
        job("backoff-1", priority=90, not_before=cluster.now + 5.0),
        job("ready-2", max_runtime_s=5.0),
    )
    assert list(starts(cluster.step())) == ["ready-2"]
    cluster.now += 5.0
    cluster.end("ready-2")
    assert list(starts(cluster.step())) == ["backoff-1"]


def test_avoided_node_is_used_only_when_there_is_no_other_way() -> None:
    """On a cluster of one node, a job that avoids it would wait for ever."""
    avoids = job("picky-0", avoided_nodes=frozenset({"a"}))
    cluster = Cluster([node("a", 1), node("b", 1)])
    cluster.submit(avoids)
    assert starts(cluster.step()) == {"picky-0": {"b": 1}}
    alone = Cluster([node("a", 1)])
    alone.submit(avoids)
    assert starts(alone.step()) == {"picky-0": {"a": 1}}


def test_fractions_of_a_gpu_add_up() -> None:
    """Ten times a tenth is one: float arithmetic would leave a job waiting."""
    cluster = Cluster([node("a", 1)])
    cluster.submit(*(job(f"tenth-{n}", gpus=0.1) for n in range(10)))
    assert len(starts(cluster.step())) == 10


def test_node_that_is_gone_frees_nothing() -> None:
    """A job on a dead node is listed until it is proven gone."""
    cluster = Cluster([node("a", 1), node("b", 1)])
    cluster.submit(job("one-0", preemptible=False), job("two-1", preemptible=False))
    cluster.step()
    cluster.snapshot = replace(
        cluster.snapshot, nodes=[n for n in cluster.snapshot.nodes if n.node_id == "a"]
    )
    cluster.submit(job("next-2"))
    assert cluster.step() == []


def test_empty_cluster_decides_nothing() -> None:
    """The orchestrator starts before the first node has joined."""
    assert decide(Snapshot(queue=[job("one-0")]), 0.0) == []


@pytest.mark.parametrize(
    ("free", "asked", "slots"),
    [(4.0, 0.7, 4), (4.0, 0.5, 8), (1.5, 0.5, 3), (0.4, 0.5, 0), (4.0, 2.0, 2), (3.0, 1.0, 3)],
)
def test_a_part_of_a_gpu_comes_from_one_gpu(free: float, asked: float, slots: int) -> None:
    """Ray gives no 0.7 of a GPU out of what two have left over."""
    assert gpu_slots(to_units(free), to_units(asked)) == slots


def test_nobody_is_evicted_for_a_place_that_another_gets() -> None:
    """When both victims have stopped, the first in line is packed otherwise: the second waits."""
    wide = gang("j1", 4, 0.5, priority=50, cpus_per_worker=4.0)
    low = gang("j0", 6, 0.5, priority=0)
    cluster = Cluster(
        [
            replace(node("n0", 2, 4), free_cpus=0.0, free_gpus=0.0),
            replace(node("n1", 8), free_cpus=0.0, free_gpus=6.0),
            replace(node("n2", 2), free_cpus=14.0, free_gpus=1.0),
        ]
    )
    held = [started_job(wide, {"n1": 4}, 0.0), started_job(low, {"n0": 4, "n2": 2}, 0.0)]
    cluster.snapshot = replace(cluster.snapshot, running=held)
    second = job(
        "j3", 0.5, num_workers_min=3, num_workers_max=4, cpus_per_worker=2.0, preemptible=False
    )
    cluster.submit(gang("j2", 4, priority=100, cpus_per_worker=4.0), second)
    evicted_for = {a.for_job for a in cluster.step() if isinstance(a, Preempt)}
    cluster.stop_all()
    cluster.step()
    assert evicted_for
    assert evicted_for <= cluster.running
