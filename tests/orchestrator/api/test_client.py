"""Jobs, metrics and sets as a program or a notebook gets them."""

import asyncio
import dataclasses
from html.parser import HTMLParser

import numpy as np
import pytest

from orchestrator.api import Client, TrainJob, connection, jobs
from orchestrator.client import asking, surroundings
from orchestrator.client.submit import submit_job
from orchestrator.errors import BadInputError, JobNotFoundError, SpecConflictError
from orchestrator.jobs.records import RecordStore
from orchestrator.store.keys import JobPaths
from orchestrator.tracking.writer import MetricWriter
from tests.support.fakes import MemoryStore
from tests.support.sample_sets import put_set
from tests.support.world import World, train_job

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A store and an orchestrator that moves whenever somebody makes sure that it runs."""
    world = World()
    monkeypatch.setenv("DDPMCTL_STORE", "s3://bucket/jobs")
    monkeypatch.setattr(surroundings, "open_store", lambda _uri: world.store)
    for module in (connection, jobs, asking):
        monkeypatch.setattr(module, "ensure_running", lambda _around, _say: world.step(2))
    return world


def asked(**changes: object) -> TrainJob:
    """Return a training of digits."""
    fields = {"name": "a", "dataset": {"source": "digits"}, "training": {"num_steps": 10}}
    return TrainJob(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_job_is_submitted_once_and_found_again(world: World) -> None:
    """The same id and job are the same job, whoever asks."""
    client = Client()
    job = client.submit(asked(), job_id="a-1")
    assert client.submit(asked(), job_id="a-1").id == job.id == client.job("a").id == "a-1"
    assert [listed.job_id for listed in client.jobs()] == ["a-1"]
    assert job.status().state == world.state("a-1")
    assert job.spec().name == "a"
    assert job.events()
    with pytest.raises(SpecConflictError):
        client.submit(asked(priority=60), job_id="a-1")
    with pytest.raises(JobNotFoundError):
        client.job("nothing")


def test_waiting_gives_the_last_status_or_says_that_the_job_goes_on(world: World) -> None:
    """A program must tell an end from a lack of patience, in tasks of an event loop, too."""
    submit_job(world.store, train_job("big", workers=64), "big-1")
    job = Client().job("big")
    with pytest.raises(TimeoutError, match="big-1 is QUEUED after 0 s; it goes on"):
        job.wait(timeout_s=0)
    with pytest.raises(TimeoutError, match="it goes on"):
        asyncio.run(job.wait_async(timeout_s=0))
    assert job.cancel(grace_s=0).state == "CANCELLED"
    assert job.cancel().state == "CANCELLED"

    async def awaited() -> str:
        return str((await job).state)

    assert asyncio.run(awaited()) == "CANCELLED"
    assert job.retry().state == "QUEUED"


def test_metrics_are_a_table_by_step_with_the_last_value_of_a_step(world: World) -> None:
    """An attempt that was lost took steps that the next one took again."""
    submit_job(world.store, train_job("m"), "m-1")
    records = RecordStore(world.store)
    current = records.read("m-1")
    records.write(current, dataclasses.replace(current.record, attempt=2))
    for attempt, steps in ((1, (1, 2, 3)), (2, (3, 4))):
        with MetricWriter(world.store, JobPaths("m-1").attempt(attempt)) as metrics:
            for step in steps:
                metrics.log(step, {"loss": 10.0 * attempt + step})
            metrics.log(4, {"other": 1.0})
    frame = Client().job("m-1").metrics()
    assert frame["loss"].tolist() == [11.0, 12.0, 23.0, 24.0]
    assert frame.index.tolist() == [1, 2, 3, 4]
    assert frame["other"].isna().sum() == 3


def test_a_job_without_metrics_has_an_empty_table(world: World) -> None:
    """A notebook cell that runs too early is no error."""
    submit_job(world.store, train_job("m"), "m-1")
    assert Client().job("m").metrics().empty


def test_images_come_by_number_across_shards(world: World) -> None:
    """Who wants images 5 to 9 should not have to know how a set is cut."""
    put_set(world.store, "set-1", PIXELS, 6)
    samples = Client().samples("set-1")
    assert len(samples) == 20
    np.testing.assert_array_equal(samples.images(5, 13), PIXELS[5:13])
    np.testing.assert_array_equal(samples.images(), PIXELS)
    assert samples.labels(0, 4) is None
    assert samples.verify().is_whole
    for start, stop in ((0, 21), (-1, 3), (4, 4)):
        with pytest.raises(BadInputError, match="has images 0 to 19"):
            samples.images(start, stop)


def test_a_set_shows_what_is_drawn_before_it_is_whole(world: World) -> None:
    """A look at the first images is what people do while they wait."""
    put_set(world.store, "set-1", PIXELS, 6, whole=False)
    world.store.delete(JobPaths("set-1").shard(2))
    samples = Client().samples("set-1")
    np.testing.assert_array_equal(samples.images(0, 12), PIXELS[:12])
    with pytest.raises(BadInputError, match="images 12 to 17 are not drawn yet"):
        samples.images(10, 14)
    assert "not drawn yet" in samples._repr_html_()


class _Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)


def test_a_notebook_shows_jobs_as_a_table_and_a_set_as_a_grid(world: World) -> None:
    """What is shown is text of users and of other people's errors: none of it is markup."""
    store: MemoryStore = world.store
    put_set(store, "set-1", PIXELS, 10)
    submit_job(store, train_job("m"), "m-1")
    records = RecordStore(store)
    current = records.read("m-1")
    records.write(current, dataclasses.replace(current.record, message="<script>x</script>"))
    client = Client()
    for shown in (client.job("m-1")._repr_html_(), client.jobs()._repr_html_()):
        assert "script" not in _Tags(shown).found
    assert "<script>" not in client.job("m-1")._repr_html_()
    assert _Tags(client.jobs()._repr_html_()).found.count("tr") == len(client.jobs()) + 1
    assert "data:image/png;base64," in client.samples("set-1")._repr_html_()
    assert client.jobs().frame()["job_id"].tolist() == [job.job_id for job in client.jobs()]
    assert list(client.jobs()[:1]) == [client.jobs()[0]]
