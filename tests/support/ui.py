"""A store with jobs of every kind for the page, and an application that shows it."""

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from orchestrator.artifacts.images import encode_png
from orchestrator.client.status import JobStatus, request
from orchestrator.client.submit import submit_job
from orchestrator.jobs.inbox import Verb
from orchestrator.jobs.index import INDEX, read_index
from orchestrator.jobs.index_entry import index_entry
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobState, Reason
from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from orchestrator.tracking.writer import MetricWriter
from orchestrator.ui.access import Access
from orchestrator.ui.app import Actions, build_app
from orchestrator.ui.looks import Looks
from tests.support.sample_sets import put_set
from tests.support.world import World, train_job

PORT = 8421
ACCESS = Access("the-token", PORT)
EVIL = "<script>alert(1)</script>\"'&"
PIXELS = np.random.default_rng(0).integers(0, 256, (230, 4, 4, 1), dtype=np.uint8)


def busy_world() -> World:
    """Return a training at work with curves and pictures, one waiting, one failed, a set."""
    world = World()
    submit_job(world.store, train_job("works"), "works-1")
    submit_job(world.store, train_job("waits", workers=64), "waits-1")
    submit_job(world.store, train_job("fails", workers=64), "fails-1")
    world.step(2)
    request(world.store, "fails-1", Verb.CANCEL, 0)
    world.step(2)
    world.begin("works-1")
    world.beat("works-1", committed=4)
    world.step(2)
    put_set(world.store, "set-1", PIXELS, 50)
    world.store.put("queue/set-1", b"{}")
    with MetricWriter(world.store, JobPaths("works-1").attempt(1)) as metrics:
        for step in range(1, 6):
            metrics.log(step, {"loss": 1.0 / step, "images_per_s": 10.0 + step})
        png = encode_png(np.zeros((8, 8, 1), np.uint8))
        metrics.log_image("samples/step-000005.png", png, 5)
        metrics.log_image("film/reverse-chain.png", png, 5)
    records = RecordStore(world.store)
    current = records.read("fails-1")
    failed = dataclasses.replace(
        current.record, state=JobState.FAILED, message=EVIL, owner=EVIL, reason=Reason.USER_CODE
    )
    records.write(current, failed)
    index = read_index(world.store)
    assert index is not None
    ended = [index_entry(failed), *(job for job in index.ended if job.job_id != "fails-1")]
    world.store.put(keys.INDEX, INDEX.encode(dataclasses.replace(index, ended=tuple(ended))))
    return world


def app_of(world: World, actions: Actions | None = None) -> Any:
    """Return the application of a world."""
    return build_app(Looks(world.store, links_of), ACCESS, actions)


def links_of(_status: JobStatus) -> dict[str, str]:
    """Return the addresses of a job's pages elsewhere."""
    return {"MLflow": "http://127.0.0.1:5000/?token=x#/experiments"}


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a request came to.

    Attributes:
        status: The status code.
        headers: By their name in small letters; of several of one name, the last.
        body: What was sent.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


def ask(
    app: Any,
    path: str,
    *,
    method: str = "GET",
    body: bytes = b"",
    cookie: str | None = ACCESS.cookie,
    **headers: str,
) -> Answer:
    """Return what an application answers, without a server.

    Args:
        app: The application.
        path: With its query.
        method: "GET" or "POST".
        body: Of the request.
        cookie: Value of the page's cookie; None for none.
        headers: Further ones; `host` is the server's own unless it is given.
    """
    given = {"host": f"127.0.0.1:{PORT}", **headers}
    if cookie is not None:
        given["cookie"] = f"{ACCESS.cookie_name}={cookie}"
    where, _, query = path.partition("?")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": where,
        "raw_path": where.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "server": ("127.0.0.1", PORT),
        "client": ("127.0.0.1", 1),
    }
    sent: list[dict[str, Any]] = []
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop()
        await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(
        sent[0]["status"], answered, b"".join(message.get("body", b"") for message in sent[1:])
    )
