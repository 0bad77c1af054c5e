"""Ray's own start is as patient as it is told."""

import inspect

import pytest
from ray._private import node, services

from orchestrator.stack.ray_start import patient


@pytest.mark.parametrize(("failures", "within_s", "succeeds"), [(5, 10, True), (50, 10, False)])
def test_a_look_waits_for_what_takes_longer(failures: int, within_s: int, succeeds: bool) -> None:
    """On a busy machine Ray gave up after 30 s, three times in a row, each time from nothing."""
    now, looks = [0.0], [0]

    def look(name: str) -> str:
        looks[0] += 1
        if looks[0] <= failures:
            raise RuntimeError("no such node")
        return name

    def sleep(_: float) -> None:
        now[0] += 1.0

    patiently = patient(look, within_s, clock=lambda: now[0], sleep=sleep)
    if succeeds:
        assert patiently("a") == "a"
        return
    with pytest.raises(RuntimeError, match="no such node"):
        patiently("a")
    assert now[0] == within_s


def test_ray_still_looks_for_its_node_where_patience_is_put() -> None:
    """The function is not Ray's interface: a new version may look in another way."""
    assert callable(services.get_node)
    assert "ray._private.services.get_node(" in inspect.getsource(node)
