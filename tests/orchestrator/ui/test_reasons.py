"""Every waiting job on the page has its reason, and a page left open costs little."""

from collections.abc import Iterator

from orchestrator.client.submit import submit_job
from orchestrator.scheduling.snapshot import Snapshot
from orchestrator.ui.reasons import Reasons
from tests.support.page_reader import Reader
from tests.support.scheduling import Cluster, gang, job, node
from tests.support.ui import app_of, ask
from tests.support.world import World, train_job


def test_each_of_many_waiting_jobs_has_its_reason() -> None:
    """The question of whoever looks is about the own job, which is seldom among the first."""
    world = World()
    for number in range(112):
        submit_job(world.store, train_job("waits", workers=64), f"waits-{number}")
    world.step(3)
    app = app_of(world)
    text = ask(app, "/?part=now").text
    assert text.count("never: ") == 100
    assert "all 112 waiting jobs" in text
    (more,) = [a["href"] for a in Reader(text).all("a") if "all=1" in str(a["href"])]
    assert ask(app, str(more)).text.count("never: ") == 112
    only = ask(app, "/?name=waits&part=now").text
    assert "/?name=waits&amp;all=1" in only


def test_reasons_that_take_long_are_kept_for_ten_times_as_long() -> None:
    """A page that is left open over a large cluster must not take a processor for itself."""
    ticks: Iterator[float] = iter([0.0, 2.0, 21.9, 22.0, 22.1, 22.2, 22.3])
    reasons = Reasons(clock=lambda: next(ticks))
    waits = _waiting("a0")
    first = reasons.of_jobs(waits, ["a0"], 1000.0)
    assert first["a0"].startswith("not now: ")
    fits = Cluster([node("n", 8)])
    fits.submit(job("a0", 8.0), gang("b1", 2, 8.0))
    assert reasons.of_jobs(fits.snapshot, ["a0"], 1000.0) is first
    assert reasons.of_jobs(fits.snapshot, ["a0"], 1000.0)["a0"].startswith("starts next: ")
    both = reasons.of_jobs(fits.snapshot, ["a0", "b1"], 1000.0)
    assert both["b1"].startswith("never: ")


def test_somebody_who_was_not_asked_about_is_told_at_once() -> None:
    """Another page, or another search, must not show an old page's answers alone."""
    ticks: Iterator[float] = iter([0.0, 2.0, 3.0, 3.1])
    reasons = Reasons(clock=lambda: next(ticks))
    waits = _waiting("a0", "b1")
    reasons.of_jobs(waits, ["a0"], 1000.0)
    assert set(reasons.of_jobs(waits, ["b1"], 1000.0)) == {"b1"}


def _waiting(*job_ids: str) -> Snapshot:
    """Return a node that is taken, and jobs that wait for it."""
    cluster = Cluster([node("n", 8)])
    cluster.submit(job("held0", 8.0, preemptible=False))
    cluster.step()
    cluster.submit(*(job(job_id, 8.0) for job_id in job_ids))
    return cluster.snapshot
