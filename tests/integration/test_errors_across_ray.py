"""Each error of ours goes through real actors, and a driver reads it as what it was."""

from collections.abc import Iterator
from typing import Any

import pytest
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


@pytest.fixture(scope="module")
def actors() -> Iterator[tuple[Any, Any]]:
    """Two actors of a small Ray of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, _skip_env_hook=True)
        try:
            actor = ray.remote(num_cpus=0)(Raising)
            yield actor.remote(), actor.remote()
        finally:
            ray.shutdown()


def test_every_error_arrives_with_its_class_its_fields_and_its_reason(
    actors: tuple[Any, Any],
) -> None:
    """A driver that could not read what its worker raised died of that, and told nobody why."""
    one, other = actors
    ways = ("plainly", "as_a_cause")
    sent = [(example_of(cls), how) for cls in our_error_classes() for how in ways]
    calls = [getattr(one, how).remote(error) for error, how in sent]
    through = [other.through.remote(one, how, error) for error, how in sent]
    for (error, how), call in zip([*sent, *sent], [*calls, *through], strict=True):
        with pytest.raises(RayError) as caught:
            ray.get(call, timeout=60)
        raised = unwrapped(caught.value)
        assert reason_of(caught.value) is reason_of(error), (error, how)
        assert (type(raised), raised.args, str(raised)) == (type(error), error.args, str(error))
        assert headline(caught.value).endswith(str(error))
        outcome = Outcome(reason=reason_of(caught.value), message=headline(caught.value))
        assert OUTCOME.decode(OUTCOME.encode(outcome)) == outcome
