"""A process is gone when its own machine says so, or when Ray says that its node is."""

from typing import Any

import pytest

from orchestrator.cluster.process_identity import boot_id
from orchestrator.cluster.process_search import (
    Asked,
    NodeAnswer,
    ProcessRef,
    Sighting,
    local_processes,
    nodes_to_ask,
    sighted,
)


def node(node_id: str, alive: bool = True) -> dict[str, Any]:
    """Return a node as `ray.nodes` tells of it; all bear one host's name."""
    return {"NodeID": node_id, "NodeManagerHostname": "twin", "Alive": alive}


def process(node_id: str, boot: str = "boot") -> ProcessRef:
    """Return a process of an attempt."""
    return ProcessRef("worker-0", 7, 1.5, boot, node_id, "twin")


def test_a_process_is_looked_for_on_its_own_node_and_not_on_one_of_the_same_name() -> None:
    """The other one knows nothing of it: its word that it is gone started a job twice."""
    one, two = process("n1"), process("n2")
    assert nodes_to_ask([one, two], [node("n1"), node("n2")]) == Asked({"n1": [one], "n2": [two]})


def test_a_process_is_gone_with_its_node_and_no_sooner() -> None:
    """A node that cannot be asked is asked again until Ray calls it dead."""
    mine = process("n1")
    assert nodes_to_ask([mine], [node("n1", alive=False), node("n2")]) == Asked({})
    asked = nodes_to_ask([mine], [node("n1")])
    assert sighted(asked, {"n1": None}) == Sighting([mine])
    assert sighted(asked, {"n1": NodeAnswer("boot", [])}) == Sighting([])


def test_a_process_of_a_node_that_this_ray_never_knew_is_looked_for_everywhere() -> None:
    """After Ray was started anew all nodes have new ids, and what ran there may run still."""
    both = [process("n0"), process("")]
    nodes = [node("n1"), node("n2"), node("n3", alive=False)]
    assert nodes_to_ask(both, nodes) == Asked({"n1": both, "n2": both})


@pytest.mark.parametrize("nodes", [[], [node("n1", alive=False)]])
def test_a_process_of_an_unknown_node_is_not_gone_where_no_node_is_up(
    nodes: list[dict[str, Any]],
) -> None:
    """A head without nodes was started anew a moment ago; what ran before may run on."""
    both = [process("n0"), process("")]
    assert sighted(nodes_to_ask(both, nodes), {}) == Sighting([], both)


@pytest.mark.parametrize(
    ("answers", "is_running", "is_unknown"),
    [
        # A machine of another start, and be it of the same name, knows nothing of it.
        ({"n1": NodeAnswer("later", []), "n2": NodeAnswer("other", [])}, False, True),
        ({"n1": NodeAnswer("later", []), "n2": NodeAnswer("boot", [])}, False, False),
        ({"n1": NodeAnswer("boot", [process("n0")]), "n2": None}, True, False),
        ({"n1": NodeAnswer("boot", []), "n2": None}, False, False),
        ({"n1": NodeAnswer("other", []), "n2": None}, True, False),  # it may be the silent one's
    ],
)
def test_only_its_own_machine_can_say_that_a_process_is_gone(
    answers: dict[str, NodeAnswer | None], is_running: bool, is_unknown: bool
) -> None:
    """What nobody could be asked for counted as gone, and its job was started beside it."""
    mine = process("n0")
    seen = sighted(nodes_to_ask([mine], [node("n1"), node("n2")]), answers)
    assert seen == Sighting([mine] * is_running, [mine] * is_unknown)


def test_a_process_of_another_start_or_container_is_not_found_here() -> None:
    """Its pid here is somebody else's, who must not be killed."""
    assert local_processes([process("n1")], kill=True) == NodeAnswer(boot_id(), [])
    assert ProcessRef("driver", 1, -1.0, boot_id(), "n1", "h").identity.find() is None
