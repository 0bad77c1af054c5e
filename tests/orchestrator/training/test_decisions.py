"""Memory that does not suffice: a training seeks parts of its batch that fit, and keeps to them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm.config import TrainingConfig
from ddpm.network.unet import UNet
from orchestrator.errors import SmokeTestError
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.causes import reason_of
from orchestrator.lifecycle.state import JobState, Reason
from orchestrator.store.keys import JobPaths
from orchestrator.training.decisions import HAS_TRAINED, MICROBATCH, TrainingDecisions
from tests.support.fakes import MemoryStore
from tests.support.trainings import (
    TRAIN,
    begun,
    end,
    submit_training,
    train_to_the_end,
    weights_of,
    work,
)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images a device takes at a time: the list's one number, which tests change."""
    limit, forward = [10**6], UNet.forward

    def with_limit(self: UNet, x_t: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(x_t) > limit[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x_t, *rest)

    monkeypatch.setattr(UNet, "forward", with_limit)
    return limit


def fail(store: MemoryStore, job_id: str) -> None:
    """Run an attempt that ends without memory and goes back into the queue."""
    attempt = begun(store, job_id)
    with pytest.raises(SmokeTestError) as caught:
        work(attempt)
    assert reason_of(caught.value) is Reason.OUT_OF_MEMORY
    end(store, job_id, JobState.QUEUED, Reason.OUT_OF_MEMORY)


def decided(store: MemoryStore, job_id: str) -> dict[str, Any]:
    """Return the decisions of a job."""
    values: dict[str, Any] = json.loads(store.get(JobPaths(job_id).decisions).body)
    return values


@pytest.mark.slow
def test_each_attempt_without_memory_halves_the_images_of_a_pass(
    tmp_path: Path, room: list[int]
) -> None:
    """4, 2, 1: the first that takes a step fixes it, and says so; its bits are those of that size.

    So a job that was sent to a smaller GPU than it was written for trains all the same.
    """
    store = MemoryStore()
    submit_training(tmp_path, store, "asked", TRAIN, "training.microbatch_size=1")
    train_to_the_end(store, "asked")
    submit_training(tmp_path, store, "t", TRAIN)
    room[0] = 1
    fail(store, "t")
    assert decided(store, "t")[MICROBATCH] == 4
    fail(store, "t")
    assert decided(store, "t")[HAS_TRAINED] is False
    train_to_the_end(store, "t")
    fixed = decided(store, "t")
    assert (fixed[MICROBATCH], fixed[HAS_TRAINED], fixed["attempt"]) == (1, True, 3)
    messages = [event.message for event in RecordStore(store).events("t")]
    told = "computes {} image(s) of a worker at a time, since 4 did not fit into memory"
    assert [m for m in messages if "at a time" in m] == [told.format(n) for n in (2, 1)]
    assert weights_of(store, "t", 4) == weights_of(store, "asked", 4)


@pytest.mark.slow
def test_what_has_trained_stays_as_it_was_split(tmp_path: Path, room: list[int]) -> None:
    """Later trouble with memory is another attempt's to cure: other parts would give other bits."""
    store = MemoryStore()
    submit_training(tmp_path, store, "t", TRAIN)
    work(begun(store, "t"))
    store.delete(JobPaths("t").checkpoint(4))  # as if it had been lost before its end
    end(store, "t", JobState.QUEUED, Reason.OUT_OF_MEMORY)
    train_to_the_end(store, "t")
    assert decided(store, "t")[MICROBATCH] == 4


@pytest.mark.parametrize(
    ("batch", "asked", "sizes"), [(12, None, [12, 6, 3, 1, 1]), (9, 9, [9, 3])]
)
def test_half_is_a_divisor_of_the_share(
    tmp_path: Path, batch: int, asked: int | None, sizes: list[int]
) -> None:
    """The parts of a batch are of one size; 1 is the least."""
    store = MemoryStore()
    submit_training(tmp_path, store, "t", TRAIN)
    training = TrainingConfig(num_steps=1, global_batch_size=batch, microbatch_size=asked)
    found = []
    for _ in sizes:
        found.append(TrainingDecisions(begun(store, "t"), training, 1).proposed_size)
        end(store, "t", JobState.QUEUED, Reason.OUT_OF_MEMORY)
    assert found == sizes


def test_workers_of_an_attempt_agree_whoever_comes_first(tmp_path: Path) -> None:
    """On two kinds of machines they propose different things; one of them stands for both."""
    store = MemoryStore()
    submit_training(tmp_path, store, "t", TRAIN)
    training = TrainingConfig(num_steps=1, global_batch_size=4)
    first = TrainingDecisions(begun(store, "t"), training, 1)
    assert first.fix({"compute": "a", MICROBATCH: 4}).values["compute"] == "a"
    end(store, "t", JobState.QUEUED, Reason.OUT_OF_MEMORY)
    attempt = begun(store, "t")
    ranks = [TrainingDecisions(attempt, training, 1) for _ in range(2)]
    said = [r.fix({"compute": c, MICROBATCH: 2}) for r, c in zip(ranks, "bc", strict=True)]
    assert [(one.values["compute"], one.values["attempt"]) for one in said] == [("b", 2), ("b", 2)]
    ranks[0].confirm()
    end(store, "t", JobState.QUEUED, Reason.OUT_OF_MEMORY)
    later = TrainingDecisions(begun(store, "t"), training, 1)
    assert later.proposed_size == 1
    assert later.fix({"compute": "d", MICROBATCH: 1}).values["compute"] == "b"


def test_decisions_of_earlier_versions_stand(tmp_path: Path) -> None:
    """They were fixed by the first attempt, whatever came of it."""
    store = MemoryStore()
    submit_training(tmp_path, store, "t", TRAIN)
    store.put(JobPaths("t").decisions, b'{"attempt": 1, "compute": "old"}')
    decisions = TrainingDecisions(begun(store, "t"), TrainingConfig(num_steps=1), 1)
    stand = decisions.fix({"compute": "new", MICROBATCH: 8})
    assert stand.values == {"attempt": 1, "compute": "old"}
