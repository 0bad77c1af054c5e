"""Sends each error of ours through real actors, in a process with a small Ray of its own.

`python -m tests.support.across_ray` prints a line for each error that did not arrive as sent:
its class, its fields, its words and what it stands for.
"""

from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayError

from orchestrator.jobs.heartbeat import OUTCOME
from orchestrator.lifecycle.causes import headline, raising_causes, reason_of, unwrapped
from orchestrator.lifecycle.outcome import Outcome
from tests.support.errors import example_of, our_error_classes


class Raising:
    """An actor that raises, by itself or through another one, plainly or as a cause."""

    def plainly(self, error: Exception) -> None:
        """Raise an error."""
        raise error

    def as_a_cause(self, error: Exception) -> None:
        """Raise an error of the code, caused by another one."""
        with raising_causes():
            raise RuntimeError("something failed") from error

    def through(self, other: Any, how: str, error: Exception) -> None:
        """Let another actor's error out of this one."""
        ray.get(getattr(other, how).remote(error))


def failures() -> Iterator[str]:
    """Yield what did not arrive as it was sent."""
    actor = ray.remote(num_cpus=0)(Raising)
    one, other = actor.remote(), actor.remote()
    ways = ("plainly", "as_a_cause")
    sent = [(example_of(cls), how) for cls in our_error_classes() for how in ways]
    calls = [getattr(one, how).remote(error) for error, how in sent]
    through = [other.through.remote(one, how, error) for error, how in sent]
    for (error, how), call in zip([*sent, *sent], [*calls, *through], strict=True):
        try:
            ray.get(call, timeout=60)
        except RayError as raised:
            yield from (f"{error!r} {how}: {told}" for told in _differences(error, raised))
        else:
            yield f"{error!r} {how}: nothing was raised"
    print(len(calls) + len(through), "sent")  # noqa: T201 - for the test that reads this


def _differences(error: Exception, raised: Exception) -> Iterator[str]:
    arrived = unwrapped(raised)
    if reason_of(raised) is not reason_of(error):
        yield f"stands for {reason_of(raised)}, not {reason_of(error)}"
    if (type(arrived), arrived.args, str(arrived)) != (type(error), error.args, str(error)):
        yield f"came as {arrived!r}"
    if not headline(raised).endswith(str(error)):
        yield f"is told as {headline(raised)}"
    outcome = Outcome(reason=reason_of(raised), message=headline(raised))
    if OUTCOME.decode(OUTCOME.encode(outcome)) != outcome:
        yield "does not survive as an outcome"


def main() -> None:
    """Start a Ray, send, tell."""
    ray.init(
        address="local",  # never one that somebody else on this machine has started
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        _skip_env_hook=True,
    )
    try:
        for failure in failures():
            print("FAILED", failure)  # noqa: T201 - for the test that reads this
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
