"""Which checkpoints of a training are evaluated while it goes on, and which is the best. Pure."""

from collections.abc import Collection, Iterable, Mapping

from orchestrator.lifecycle.state import JobRecord, JobState

MAX_EVALUATIONS = 1000
_LOWER_IS_BETTER = frozenset({"kid", "fid", "fd"})


def evaluated_steps(every_steps: int, num_steps: int) -> range | list[int]:
    """Return the steps whose checkpoints are evaluated, ascending: the last one is always there.

    Args:
        every_steps: Steps between two of them.
        num_steps: Of the training.
    """
    steps = range(every_steps, num_steps + 1, every_steps)
    return steps if num_steps % every_steps == 0 else [*steps, num_steps]


def is_evaluated(step: int, every_steps: int, num_steps: int) -> bool:
    """Tell whether the checkpoint of a step is evaluated."""
    return step == num_steps or step % every_steps == 0


def steps_to_begin(
    training: JobRecord,
    committed: Iterable[int],
    begun: Collection[int],
    every_steps: int,
    num_steps: int,
) -> list[int]:
    """Return the steps whose evaluation is to be created now, ascending.

    Args:
        training: Its record.
        committed: Steps of the checkpoints that it has.
        begun: Steps whose evaluation is there, or has been.
        every_steps: Steps between two evaluations.
        num_steps: Of the training.
    """
    if is_called_off(training):
        return []
    due = (step for step in committed if is_evaluated(step, every_steps, num_steps))
    return sorted(set(due).difference(begun))


def is_called_off(training: JobRecord) -> bool:
    """Tell whether a training's evaluations are to end with it: somebody has cancelled it."""
    return JobState.CANCELLED in (training.state, training.stop_target)


def best_step(values: Mapping[int, float], measure: str) -> int | None:
    """Return the step with the best value, of equal ones the last; None of nothing.

    Args:
        values: By step.
        measure: The metric, as "kid": that says whether low or high is good.
    """
    sign = 1.0 if measure in _LOWER_IS_BETTER else -1.0
    return min(values, key=lambda step: (sign * values[step], -step), default=None)
