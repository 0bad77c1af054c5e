"""What a training decides once: how it computes, and in which parts a worker's batch is computed.

What was decided stands for all attempts from the first one on that takes a step. Until then the
parts are still sought: an attempt that follows one which ended as OUT_OF_MEMORY takes half as many
images at a time, and decides anew.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ddpm.config import TrainingConfig
from orchestrator.attempts.attempt import Attempt
from orchestrator.errors import ConditionFailedError
from orchestrator.lifecycle.state import HAS_TRAINED, Reason

_Values = dict[str, Any]
MICROBATCH = "microbatch_size"


class TrainingDecisions:
    """The decisions of one training, as an attempt sees them.

    Args:
        attempt: Which.
        training: What was asked.
        num_workers: Among which a batch is shared.
    """

    def __init__(self, attempt: Attempt, training: TrainingConfig, num_workers: int) -> None:
        self._attempt = attempt
        self._training = training
        self._share = training.global_batch_size // num_workers
        self._asked = training.images_per_pass(num_workers)
        ended = attempt.record.attempts
        self._num_halvings = sum(one.reason is Reason.OUT_OF_MEMORY for one in ended)

    @property
    def proposed_size(self) -> int:
        """The images of a pass: what was asked, halved once for each attempt without memory.

        The largest divisor of the worker's share that is half at most; 1 stays 1.
        """
        size = self._asked
        for _ in range(self._num_halvings):
            half = max(1, size // 2)
            size = next(one for one in range(half, 0, -1) if self._share % one == 0)
        return size

    def fix(self, proposal: Mapping[str, Any]) -> dict[str, Any]:
        """Return what holds for this attempt: what stands, or this proposal.

        It may take the place of what an earlier attempt decided that never took a step. All workers
        of an attempt get the same, whoever comes first.

        Args:
            proposal: JSON values with the key MICROBATCH; those of a training that this one goes on
                from, with HAS_TRAINED, are final.
        """
        self._attempt.decide_once({HAS_TRAINED: False, **proposal})
        return self._changed(
            lambda fixed: (
                None
                if self._stands(fixed, proposal)
                else {**fixed, **proposal, HAS_TRAINED: False, "attempt": self._attempt.number}
            )
        )

    def config(self, fixed: Mapping[str, Any]) -> TrainingConfig:
        """Return what is trained: what was asked, in the parts that were decided."""
        size = fixed.get(MICROBATCH, self._asked)
        is_as_asked = size == self._asked
        return self._training if is_as_asked else replace(self._training, microbatch_size=size)

    def told(self, fixed: Mapping[str, Any]) -> str:
        """Return the line about parts that this attempt is the first to try; "" for none."""
        size = fixed.get(MICROBATCH, self._asked)
        if size == self._asked or fixed.get(HAS_TRAINED) is not False:
            return ""
        return (
            f"computes {size} image(s) of a worker at a time, since {self._asked} did not fit into "
            "memory"
        )

    def confirm(self) -> None:
        """Say that this attempt took a step: from now on nothing decides anew."""
        self._changed(
            lambda fixed: {**fixed, HAS_TRAINED: True} if fixed.get(HAS_TRAINED) is False else None
        )

    def _changed(self, change: Callable[[Mapping[str, Any]], _Values | None]) -> _Values:
        """Change what stands until there is nothing more to change, and return it."""
        store, key = self._attempt.store, self._attempt.job.decisions
        while True:
            stored = store.get(key)
            fixed: _Values = json.loads(stored.body)
            wanted = change(fixed)
            if wanted is None:
                return fixed
            with suppress(ConditionFailedError):  # another worker came first: look again
                store.put(key, json.dumps(wanted).encode(), if_match=stored.etag)

    def _stands(self, fixed: Mapping[str, Any], proposal: Mapping[str, Any]) -> bool:
        if fixed.get(HAS_TRAINED) is not False:  # an earlier version decided in the first attempt
            return True
        is_of_this = fixed["attempt"] == self._attempt.number
        return is_of_this or bool(fixed[MICROBATCH] == proposal[MICROBATCH])
