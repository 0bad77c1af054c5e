"""An MLflow that is down holds up the jobs that need it, and nothing else."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from orchestrator.controller.models import ASK_AGAIN_AFTER, ModelFinder, ModelResolution
from orchestrator.errors import TrackingError
from orchestrator.specs.sections import ModelRef
from orchestrator.store.objects import ObjectStore
from tests.support.fakes import MemoryStore
from tests.support.models import model_of

REGISTERED, TRAINED = ModelRef(registered="digits@champion"), ModelRef(job="digits")


def test_an_mlflow_that_is_down_is_not_asked_for_each_job_in_each_loop() -> None:
    """Each question may take seconds, and the loop has a lease to renew."""
    asked = []

    def find(store: ObjectStore, ref: ModelRef) -> ModelResolution:
        asked.append(ref)
        if ref.registered is not None and len(asked) < 3:
            raise TrackingError("no answer")
        return ModelResolution(model_of("t", 1))

    store = MemoryStore()
    finder, now = ModelFinder(store, find), store.now()
    for _ in range(5):
        assert "MLflow" in (finder.find(REGISTERED, now).waits_for or "")
    assert finder.find(TRAINED, now).waits_for is None
    assert asked == [REGISTERED, TRAINED]
    later = now + ASK_AGAIN_AFTER + timedelta(seconds=1)
    assert finder.find(REGISTERED, later).model == model_of("t", 1)


def test_a_checkpoint_that_takes_long_to_read_holds_up_no_loop() -> None:
    """It is proven whole by downloading it, while the loop has a lease to renew."""
    begun, may_end = [], threading.Event()

    def find(store: ObjectStore, ref: ModelRef) -> ModelResolution:
        begun.append(ref)
        may_end.wait(30)
        return ModelResolution(model_of("t", 1))

    store = MemoryStore()
    finder = ModelFinder(store, find, patience_s=0.05)
    for _ in range(3):
        assert "being read" in (finder.find(TRAINED, store.now()).waits_for or "")
    may_end.set()
    deadline = time.monotonic() + 30
    while not (found := finder.find(TRAINED, store.now())).model:
        assert time.monotonic() < deadline
    assert found.model == model_of("t", 1)
    assert begun == [TRAINED]


def test_a_disk_that_takes_no_checkpoint_is_named_and_waited_for() -> None:
    """Somebody makes room; until then the job says why it waits."""
    answers: list[Exception | ModelResolution] = [
        OSError(28, "No space left on device"),
        ModelResolution(model_of("t", 1)),
    ]

    def find(store: ObjectStore, ref: ModelRef) -> ModelResolution:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    store = MemoryStore()
    finder = ModelFinder(store, find)
    now = store.now()
    for _ in range(3):  # each try may be a long download
        assert "No space left" in (finder.find(TRAINED, now).waits_for or "")
    assert finder.find(TRAINED, now + ASK_AGAIN_AFTER + timedelta(seconds=1)).model == model_of(
        "t", 1
    )


def test_what_was_found_long_ago_is_looked_for_again() -> None:
    """By the clock of the loop: the training may have gone on since its job was asked for."""
    steps, may_end = iter((1, 2)), threading.Event()

    def find(store: ObjectStore, ref: ModelRef) -> ModelResolution:
        may_end.wait(30)
        return ModelResolution(model_of("t", next(steps)))

    pool, now = ThreadPoolExecutor(1), MemoryStore().now()
    finder = ModelFinder(MemoryStore(), find, patience_s=0.0, pool=pool)
    assert "being read" in (finder.find(TRAINED, now).waits_for or "")
    may_end.set()
    pool.submit(int).result(30)  # so the search is over
    later = now + timedelta(minutes=1)
    assert finder.find(TRAINED, later).model is None
    pool.submit(int).result(30)
    assert finder.find(TRAINED, later).model == model_of("t", 2)
