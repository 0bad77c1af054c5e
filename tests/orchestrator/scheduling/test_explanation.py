"""Why a job waits is answered truly: not now or never, who is ahead, and until when."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from orchestrator.errors import JobNotFoundError
from orchestrator.scheduling.decide import decide
from orchestrator.scheduling.explanation import explain, why_they_wait
from orchestrator.scheduling.snapshot import Start
from orchestrator.scheduling.verdict import Verdict
from tests.support.examples import examples
from tests.support.scheduling import Cluster, clusters, job, node


@settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cluster=clusters())
def test_verdict_agrees_with_the_decision(cluster: Cluster) -> None:
    """An explanation that the scheduler contradicts is worse than none."""
    decided = decide(cluster.snapshot, cluster.now)
    started = {action.job_id for action in decided if isinstance(action, Start)}
    for queued in cluster.snapshot.queue:
        told = explain(cluster.snapshot, queued.job_id, cluster.now)
        if queued.job_id in started:
            assert told.verdict is Verdict.STARTS_NEXT
            assert told.estimated_start_at == cluster.now
        if told.verdict is Verdict.NEVER:
            assert queued.job_id not in started
        assert len(told.ahead) == told.position - 1
        assert told.reason


@settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cluster=clusters())
def test_all_at_once_are_told_what_each_alone_is_told(cluster: Cluster) -> None:
    """A page that shows many jobs must not contradict `explain` of one of them."""
    asked = [queued.job_id for queued in cluster.snapshot.queue]
    at_once = why_they_wait(cluster.snapshot, asked, cluster.now)
    one_by_one = [explain(cluster.snapshot, job_id, cluster.now) for job_id in asked]
    assert at_once == {told.job_id: f"{told.verdict}: {told.reason}" for told in one_by_one}
    assert why_they_wait(cluster.snapshot, [*asked[:1], "gone"], cluster.now).keys() == set(
        asked[:1]
    )


def test_never_when_no_node_is_large_enough() -> None:
    """Told "not now", a user would wait for ever (apolo-cli #864)."""
    cluster = Cluster([node("a", 2), node("b", 2)])
    cluster.submit(job("huge-0", gpus=4, num_workers_min=2, num_workers_max=2))
    told = explain(cluster.snapshot, "huge-0", cluster.now)
    assert told.verdict is Verdict.NEVER
    assert "room for 0 of its 2 workers" in told.reason
    assert "2 GPUs and 16 CPUs" in told.reason
    assert told.asks_for == "2 workers of 4 GPUs and 1 CPU"
    assert told.estimated_start_at is None


def test_never_when_it_exceeds_its_quota() -> None:
    """The way out is a larger quota, so the reason names the command."""
    cluster = Cluster([node("a", 8)], quotas={"team": 2.0})
    cluster.submit(job("wide-0", queue="team", num_workers_min=4, num_workers_max=4))
    told = explain(cluster.snapshot, "wide-0", cluster.now)
    assert told.verdict is Verdict.NEVER
    assert "`ddpmctl queue set team --gpus 4`" in told.reason


def test_not_now_names_holders_and_when_they_end() -> None:
    """Whom to ask, and how long to wait, is what one wants to know (Kueue #2833)."""
    cluster = Cluster([node("a", 4), node("b", 1)])
    cluster.submit(job("large-0", gpus=3, preemptible=False), job("small-1", preemptible=False))
    cluster.step()
    cluster.snapshot = replace(
        cluster.snapshot,
        running=[replace(one, expected_end_at=1500.0) for one in cluster.snapshot.running],
    )
    cluster.submit(job("first-2", gpus=4, priority=90), job("asks-3", gpus=2))
    told = explain(cluster.snapshot, "asks-3", cluster.now)
    assert told.verdict is Verdict.NOT_NOW
    assert told.reason == "there is room for 0 of its 1 worker now"
    assert (told.position, told.ahead) == (2, ("first-2",))
    assert [holder.job_id for holder in told.holders] == ["large-0", "small-1"]
    assert told.holders[0].expected_end_at == 1500.0
    assert [(room.node_id, room.free_gpus) for room in told.free] == [("a", 0.0), ("b", 1.0)]
    assert told.estimated_start_at is None  # nobody knows when first-2 will end
    ahead = explain(cluster.snapshot, "first-2", cluster.now)
    assert ahead.estimated_start_at == 1500.0


def test_estimate_goes_through_the_jobs_ahead() -> None:
    """It starts after the one that runs and after the one before it."""
    cluster = Cluster([node("a", 1)])
    cluster.submit(job("runs-0", max_runtime_s=100.0))
    cluster.step()
    cluster.submit(job("next-1", max_runtime_s=50.0), job("asks-2"))
    told = explain(cluster.snapshot, "asks-2", cluster.now)
    assert told.estimated_start_at == cluster.now + 150.0


def test_quota_in_use_is_named() -> None:
    """GPUs are idle and the job waits all the same: the quota is the reason."""
    cluster = Cluster([node("a", 8)], quotas={"team": 2.0})
    cluster.submit(job("holds-0", gpus=2, queue="team", preemptible=False))
    cluster.step()
    cluster.submit(job("asks-1", gpus=1, queue="team"))
    told = explain(cluster.snapshot, "asks-1", cluster.now)
    assert told.verdict is Verdict.NOT_NOW
    assert told.reason == "jobs of queue team hold 2 of its 2 GPUs and it needs 1"


def test_job_that_fits_but_would_overtake_is_told_whom() -> None:
    """It sees a free GPU and must learn why that isn't for it."""
    cluster = Cluster([node("a", 4)])
    cluster.submit(job("runs-0", gpus=2, preemptible=False, max_runtime_s=100.0))
    cluster.step()
    cluster.submit(job("head-1", gpus=4), job("asks-2"))
    told = explain(cluster.snapshot, "asks-2", cluster.now)
    assert told.verdict is Verdict.NOT_NOW
    assert "head-1 is first in line" in told.reason
    assert "max_runtime_s" in told.reason


def test_eviction_and_its_end_are_told() -> None:
    """From the decision to the victim's last checkpoint the job is about to start."""
    cluster = Cluster([node("a", 1)])
    cluster.submit(job("low-0", priority=10))
    cluster.step()
    cluster.submit(job("urgent-1", priority=90))
    told = explain(cluster.snapshot, "urgent-1", cluster.now)
    assert told.verdict is Verdict.STARTS_NEXT
    assert told.reason == "it takes the place of low-0, of lower priority"
    cluster.step()
    told = explain(cluster.snapshot, "urgent-1", cluster.now)
    assert told.verdict is Verdict.STARTS_NEXT
    assert told.reason == "it starts once low-0 has stopped"


def test_what_is_no_matter_of_capacity_is_told() -> None:
    """A job that waits for a model, for its back-off or for a node has GPUs enough."""
    cluster = Cluster([node("a", 1)])
    cluster.submit(
        job("model-0", waits_for="job digits to end"),
        job("backoff-1", not_before=cluster.now + 30.0),
    )
    told = explain(cluster.snapshot, "model-0", cluster.now)
    assert told.reason == "it waits for job digits to end"
    assert told.estimated_start_at is None
    told = explain(cluster.snapshot, "backoff-1", cluster.now)
    assert told.reason == "it backs off for another 30 s"
    assert told.estimated_start_at == cluster.now + 30.0
    nodeless = replace(cluster.snapshot, nodes=(), queue=[job("alone-2")])
    told = explain(nodeless, "alone-2", cluster.now)
    assert told.verdict is Verdict.NOT_NOW
    assert told.reason == "the cluster has no node at the moment"


def test_job_that_is_not_queued_is_an_error() -> None:
    """A running job does not wait."""
    with pytest.raises(JobNotFoundError):
        explain(Cluster([node("a", 1)]).snapshot, "nobody-0", 0.0)


def test_avoided_nodes_are_named_and_so_is_that_they_are_used_all_the_same() -> None:
    """A node that looks free and is not used is a riddle otherwise."""
    picky = job("picky-0", avoided_nodes=frozenset({"a", "gone"}))
    two, alone = Cluster([node("a", 1), node("b", 1)]), Cluster([node("a", 1)])
    for cluster, avoids, uses in ((two, ("a",), ()), (alone, (), ("a",))):
        cluster.submit(picky)
        told = explain(cluster.snapshot, "picky-0", cluster.now)
        assert (told.avoids, told.uses_avoided) == (avoids, uses)
        assert told.verdict is Verdict.STARTS_NEXT
