"""How a smoke test tells of what goes wrong in it."""

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.errors import SmokeTestError
from orchestrator.lifecycle.causes import headline, reason_of


@contextmanager
def smoke_part(doing: str, kind: type[Exception] = Exception) -> Iterator[None]:
    """Prefix errors raised inside with the smoke test's name; their reason stays.

    Args:
        doing: What is tried: "taking a step", ...
        kind: Which errors; others go their own way.

    Raises:
        SmokeTestError: Something went wrong.
    """
    try:
        yield
    except kind as error:
        raise SmokeTestError(doing, reason_of(error), headline(error)) from error
