"""Further workers of a fleet come only where the job may be."""

import pytest

from orchestrator.fleet.free_room import has_labels
from orchestrator.fleet.run import label_selector
from orchestrator.specs.resources import SampleResources


def test_a_selector_says_what_the_job_asks_for() -> None:
    """A worker in borrowed room on another type of GPU would draw other last bits."""
    asked = SampleResources(accelerator=["H100", "A100"], labels={"zone": "a"})
    selector = label_selector(asked, uses_gpu=True)
    assert selector == {"zone": "a", "ray.io/accelerator-type": "in(H100,A100)"}
    assert label_selector(asked, uses_gpu=False) == {"zone": "a"}


@pytest.mark.parametrize(
    ("labels", "has"),
    [
        ({"zone": "a", "type": "H100"}, True),
        ({"zone": "a", "type": "A100"}, True),
        ({"zone": "a", "type": "T4"}, False),
        ({"type": "H100"}, False),
        ({"zone": "b", "type": "H100"}, False),
    ],
)
def test_room_is_looked_for_where_ray_would_start_a_worker(
    labels: dict[str, str], has: bool
) -> None:
    """Room that Ray then refuses would be asked for again and again."""
    assert has_labels(labels, {"zone": "a", "type": "in(H100,A100)"}) is has
