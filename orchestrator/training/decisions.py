"""What a training decides once: how it computes, and in which parts a worker's batch is computed.

What was decided stands for all attempts from the first one on that takes a step. Until then the
parts are still sought: an attempt that follows one which ended as OUT_OF_MEMORY takes half as many
images at a time, and decides anew.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from ddpm.config import TrainingConfig
from orchestrator.attempts.attempt import Attempt
from orchestrator.errors import ConditionFailedError
from orchestrator.jobs.decisions import Decisions, decode_decisions
from orchestrator.lifecycle.state import Reason
from orchestrator.store.codec import Codec

_Values = Mapping[str, object]
MICROBATCH = "microbatch_size"
HAS_TRAINED = "has_trained"
"""False as long as another attempt may still decide anew."""


@dataclass(frozen=True, kw_only=True)
class FixedTraining:
    """What holds for a training; what an earlier version did not know has no value.

    Attributes:
        compute: How it computes, as `ddpm.compute.ComputeDecision` writes it.
        num_workers: Among which a batch is shared.
        microbatch_size: Images that go through the network at a time.
        bits_version: Of the arithmetic.
        code_sha256: Hash of the sources, as information.
        shuffle_window: Chunks of a window of images; 0 for all images at once.
        has_trained: False as long as another attempt may still decide anew.
    """

    compute: Mapping[str, object]
    num_workers: int | None = None
    microbatch_size: int | None = None
    bits_version: int | None = None
    code_sha256: str = ""
    shuffle_window: int = 0
    has_trained: bool | None = None


FIXED_TRAINING = Codec(FixedTraining, "what was decided for a training")


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

    def fix(self, proposal: _Values) -> Decisions:
        """Return what holds for this attempt: what stands, or this proposal.

        It may take the place of what an earlier attempt decided that never took a step. All workers
        of an attempt get the same, whoever comes first.

        Args:
            proposal: JSON values with the key MICROBATCH; those of a training that this one goes on
                from, with HAS_TRAINED, are final.
        """
        self._attempt.decide_once(Decisions({HAS_TRAINED: False, **proposal}))
        return self._changed(
            lambda fixed: (
                None
                if self._stands(fixed, proposal)
                else {**fixed, **proposal, HAS_TRAINED: False, "attempt": self._attempt.number}
            )
        )

    def config(self, fixed: FixedTraining) -> TrainingConfig:
        """Return what is trained: what was asked, in the parts that were decided."""
        size = fixed.microbatch_size or self._asked
        is_as_asked = size == self._asked
        return self._training if is_as_asked else replace(self._training, microbatch_size=size)

    def remark(self, fixed: FixedTraining) -> str:
        """Return the line about parts that this attempt is the first to try; "" for none."""
        size = fixed.microbatch_size or self._asked
        if size == self._asked or fixed.has_trained is not False:
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

    def _changed(self, change: Callable[[_Values], _Values | None]) -> Decisions:
        """Change what stands until there is nothing more to change, and return it."""
        store, key = self._attempt.store, self._attempt.job_paths.decisions
        while True:
            stored = store.get(key)
            fixed = decode_decisions(stored.body, key)
            wanted = change(fixed.values)
            if wanted is None:
                return fixed
            with suppress(ConditionFailedError):  # another worker came first: look again
                store.put(key, Decisions(wanted).encode(), if_match=stored.etag)

    def _stands(self, fixed: _Values, proposal: _Values) -> bool:
        if fixed.get(HAS_TRAINED) is not False:  # an earlier version decided in the first attempt
            return True
        is_of_this = fixed["attempt"] == self._attempt.number
        return is_of_this or bool(fixed[MICROBATCH] == proposal[MICROBATCH])
