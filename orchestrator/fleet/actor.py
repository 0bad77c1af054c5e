"""The actor that draws shards: one thread draws, a few upload, and one call reports to the driver.

`exchange` is the only conversation: it brings orders and comes back when there is news, or after a
while. So the driver holds one call a worker, and a worker never waits for the driver or the store
as long as there is work in its queue.
"""

import logging
import os
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.attempts.address import AttemptAddress
from orchestrator.attempts.attempt import register_process
from orchestrator.attempts.log_shipper import LogShipper
from orchestrator.fleet.work import (
    PreparedWorker,
    ShardEvent,
    ShardTask,
    ShardWorker,
    Watch,
    WorkerSetup,
)
from orchestrator.jobs.decisions import Decisions
from orchestrator.lifecycle.causes import raising_causes
from orchestrator.store.keys import JobPaths
from orchestrator.store.s3_store import open_store

logger = logging.getLogger(__name__)

UPLOAD_THREADS = 2
_MAX_UPLOADS = 4


@dataclass(frozen=True, kw_only=True)
class Identity(AttemptAddress):
    """Whom a worker works for, so that it can be found and its log be read.

    Attributes:
        rank: The worker's number within the attempt; a replacement has a new one.
    """

    rank: int


@dataclass(frozen=True, kw_only=True)
class Hello:
    """What a worker says when it is ready to draw.

    Attributes:
        node_id: The Ray node it runs on.
        pid: Its process.
        proposal: What this machine proposes to decide; nothing if it was decided before.
    """

    node_id: str
    pid: int
    proposal: Decisions


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What the driver says to a worker.

    Attributes:
        decisions: What was decided for the job; in the first orders only, without tasks.
        tasks: Shards to draw, after those it has.
        drops: Shards that others have committed.
        stop: Save and end.
        wait_s: How long to wait for news.
    """

    decisions: Decisions | None = None
    tasks: tuple[ShardTask, ...] = ()
    drops: tuple[int, ...] = ()
    stop: bool = False
    wait_s: float = 0.5


@dataclass(frozen=True, kw_only=True)
class WorkerReport:
    """What a worker says to the driver.

    Attributes:
        is_ready: It has built its network and can draw.
        events: What became of shards since the last report.
        num_undrawn: Shards that it has and has not drawn.
        shard: What it draws, if anything.
        steps_done: Reverse steps done of that shard.
        steps_total: Reverse steps of that shard in all.
        steps_drawn: Reverse steps that it has done in all.
        busy_s: Seconds that it has drawn in all.
        has_ended: It was told to stop, and everything is saved.
        remarks: What a reader should know: hardware that differs, ...
    """

    is_ready: bool
    events: tuple[ShardEvent, ...]
    num_undrawn: int
    shard: int | None
    steps_done: int
    steps_total: int
    steps_drawn: int
    busy_s: float
    has_ended: bool
    remarks: tuple[str, ...] = ()


class WorkerActor:
    """Draws shards; a Ray actor.

    Args:
        setup: Opens what it works with.
        name: Its name in commits.
        identity: Registers its process and ships its log; None in benchmarks without a store.
    """

    def __init__(self, setup: WorkerSetup, name: str, identity: Identity | None = None) -> None:
        self._node_id = _node_id()
        self._log = self._enter(identity) if identity else None
        self._setup, self._name = setup, name
        self._prepared: PreparedWorker | None = None
        self._news = threading.Condition()
        self._watch = Watch()
        self._tasks: deque[ShardTask] = deque()
        self._is_ready = self._told_ready = False
        self._is_drawing = False
        self._events: list[ShardEvent] = []
        self._remarks: list[str] = []
        self._busy_s = 0.0
        self._drawing_since: float | None = None
        self._last_undrawn = 0
        self._drawer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="draw")
        self._uploader = ThreadPoolExecutor(UPLOAD_THREADS, thread_name_prefix="upload")
        self._free_uploads = threading.Semaphore(_MAX_UPLOADS)
        self._drawing: Future[None] | None = None
        self._uploads: set[Future[None]] = set()

    def _enter(self, identity: Identity) -> LogShipper:
        store = open_store(identity.store_uri)
        paths = JobPaths(identity.job_id).attempt(identity.attempt)
        register_process(store, paths, f"worker-{identity.rank}", self._node_id)
        shipper = LogShipper(store, paths, "worker", identity.rank)
        shipper.start()
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        return shipper

    def prepare(self, decisions: Decisions | None) -> Hello:
        """Get ready to draw; say where, and what this machine proposes."""
        with raising_causes():
            self._prepared = self._setup.open(self._name, decisions)
        logger.info("pid %d on node %s is ready", os.getpid(), self._node_id)
        return Hello(node_id=self._node_id, pid=os.getpid(), proposal=self._prepared.proposal)

    def exchange(self, orders: Orders) -> WorkerReport:
        """Take orders and wait for news.

        Raises:
            OrchestratorError: Drawing or uploading failed; the worker is of no more use.
        """
        with self._news:
            self._obey(orders)
            expected = self._last_undrawn + len(orders.tasks)
            self._news.wait_for(lambda: self._has_news(expected), orders.wait_s)
            self._raise_failure()
            return self._report()

    def close(self) -> None:
        """Ship the rest of the log; the worker is not used afterwards."""
        with self._news:
            self._watch.stop()
            self._news.notify_all()  # a drawing thread that waits for a shard would wait for ever
        self._drawer.shutdown(wait=False)
        if self._log is not None:
            self._log.close()

    def _obey(self, orders: Orders) -> None:
        for index in orders.drops:
            self._watch.drop(index)
        self._tasks.extend(orders.tasks)
        if orders.stop:
            self._watch.stop()
        if self._drawing is None and self._prepared and orders.decisions is not None:
            self._drawing = self._drawer.submit(self._draw_all, self._prepared, orders.decisions)
            self._drawing.add_done_callback(self._notice_end)
        self._news.notify_all()

    def _has_news(self, expected_undrawn: int) -> bool:
        is_failed = any(future.done() and future.exception() for future in self._futures())
        is_newly_ready = self._is_ready and not self._told_ready
        is_drained = self._num_undrawn < expected_undrawn
        return bool(self._events or is_failed or is_newly_ready or is_drained or self._has_ended)

    def _futures(self) -> list[Future[None]]:
        return [*self._uploads, *([self._drawing] if self._drawing else [])]

    def _raise_failure(self) -> None:
        for future in self._futures():
            if future.done():
                with raising_causes():
                    future.result()

    @property
    def _num_undrawn(self) -> int:
        return len(self._tasks) + self._is_drawing

    @property
    def _has_ended(self) -> bool:
        is_idle = self._drawing is None or self._drawing.done()
        return self._watch.is_stopped and is_idle and not self._uploads

    def _report(self) -> WorkerReport:
        events, self._events = tuple(self._events), []
        remarks, self._remarks = tuple(self._remarks), []
        self._last_undrawn = self._num_undrawn
        self._told_ready = self._is_ready
        since = self._drawing_since
        return WorkerReport(
            is_ready=self._is_ready,
            events=events,
            num_undrawn=self._num_undrawn,
            shard=self._watch.shard,
            steps_done=self._watch.steps_done,
            steps_total=self._watch.steps_total,
            steps_drawn=self._watch.steps_drawn,
            busy_s=self._busy_s + (time.monotonic() - since if since else 0.0),
            has_ended=self._has_ended,
            remarks=remarks,
        )

    def _draw_all(self, prepared: PreparedWorker, decisions: Decisions) -> None:
        work = prepared.begin(decisions)
        with self._news:
            self._remarks += work.remarks
            self._is_ready = True
            self._news.notify_all()
        while (task := self._next_task()) is not None:
            result = work.compute(task, self._watch)
            self._free_uploads.acquire()  # bounds what waits in memory for the store
            with self._news:
                seconds = self._end_task(task)
                upload = self._uploader.submit(self._keep, work, task, result, seconds)
                self._uploads.add(upload)
                self._news.notify_all()
            upload.add_done_callback(self._notice_end)

    def _next_task(self) -> ShardTask | None:
        """Wait for a shard; None once the worker is told to stop."""
        with self._news:
            self._news.wait_for(lambda: self._tasks or self._watch.is_stopped)
            if self._watch.is_stopped:
                self._hand_back()
                return None
            self._is_drawing = True
            self._drawing_since = time.monotonic()
            return self._tasks.popleft()

    def _end_task(self, task: ShardTask) -> float:
        """Note that a task is drawn, or given up; return the seconds that it took."""
        seconds = time.monotonic() - (self._drawing_since or time.monotonic())
        self._busy_s += seconds
        self._is_drawing, self._drawing_since = False, None
        self._watch.show(None)
        logger.debug("shard=%d took %.1f s", task.shard.index, seconds)
        return seconds

    def _hand_back(self) -> None:
        for task in self._tasks:
            event = ShardEvent(index=task.shard.index, kind="halved", partial=task.partial or None)
            self._events.append(event)
        self._tasks.clear()
        self._news.notify_all()

    def _keep(self, work: ShardWorker[Any], task: ShardTask, result: Any, seconds: float) -> None:
        try:
            event = work.keep(task, result)
        finally:
            self._free_uploads.release()
        with self._news:
            self._events.append(replace(event, seconds=seconds))
            self._news.notify_all()

    def _notice_end(self, future: Future[None]) -> None:
        with self._news:
            if future.exception() is None:
                self._uploads.discard(future)
            self._news.notify_all()


def _node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""
