"""What the scheduler may give away: neither more than there is nor less."""

from datetime import UTC, datetime

import pytest

from orchestrator.controller.admission import with_ours_taken
from orchestrator.lifecycle.state import JobState, Placement
from orchestrator.scheduling.nodes import NodeCapacity
from tests.support.records import record_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("there", "free"), [(0, 0.0), (1, 1.0), (2, 2.0), (3, 2.0)])
def test_a_worker_that_starts_is_counted_once(there: int, free: float) -> None:
    """Ray sees it from some moment on; counted twice, it would keep others waiting for nothing."""
    starting = record_of(
        "a",
        at=NOW,
        state=JobState.STARTING,
        attempt=1,
        placement=Placement(workers_by_node={"n1": 2}, cpus_per_worker=1, gpus_per_worker=0.0),
    )
    seen = NodeCapacity(node_id="n1", cpus=4, gpus=0, free_cpus=2, free_gpus=0)
    (node,) = with_ours_taken([seen], [starting], lambda record: {"n1": there})
    assert (node.free_cpus, node.unplaced_cpus) == (free, 2.0)
