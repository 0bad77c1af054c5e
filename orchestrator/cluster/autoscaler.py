"""What the cluster's autoscaler may start, by the settings of the head: Ray itself does not say.

Open Ray keeps the configuration of its autoscaler to that process (2.60: nothing reports a
`ClusterConfig` to the GCS), so whoever sets the cluster up says it once more.
"""

import json
import logging
import os
from typing import Any

from orchestrator.errors import BadInputError
from orchestrator.scheduling.nodes import NodeType
from orchestrator.scheduling.promised import MOST_PROMISED

VARIABLE = "DDPMCTL_NODE_TYPES"
_AMOUNTS = ("cpus", "gpus", "memory_gb")

logger = logging.getLogger(__name__)


def node_types_here() -> list[NodeType]:
    """Return the node types that this process's environment names; none where they are wrong."""
    try:
        return parse_node_types(os.environ.get(VARIABLE, ""))
    except BadInputError as error:
        logger.error("the autoscaler is asked for nothing: %s", error)
        return []


def parse_node_types(text: str) -> list[NodeType]:
    """Return the node types that a text names.

    Args:
        text: JSON, `[{"name": "gpu", "cpus": 8, "gpus": 1, "max_count": 4}]`, with `memory_gb` and
            `accelerator` where they are known; "" for none.

    Raises:
        BadInputError: It names none that could be.
    """
    if not text.strip():
        return []
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInputError(f"{VARIABLE} is no JSON: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadInputError(f"{VARIABLE} must be a list of objects, one for each node type")
    return [_node_type(entry) for entry in entries]


def _node_type(entry: dict[str, Any]) -> NodeType:
    unknown = entry.keys() - {"name", "accelerator", "max_count", *_AMOUNTS}
    if unknown:
        raise BadInputError(f"{VARIABLE}: {min(unknown)!r} is no key of a node type")
    amounts = {name: entry.get(name, 0) for name in _AMOUNTS}
    for name, amount in amounts.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or amount < 0:
            raise BadInputError(
                f"{VARIABLE}: {name} must be a number of at least 0, not {amount!r}"
            )
    max_count = entry.get("max_count")
    if type(max_count) is not int or not 0 < max_count <= MOST_PROMISED:
        raise BadInputError(
            f"{VARIABLE}: max_count must be a whole number from 1 to {MOST_PROMISED}, "
            f"not {max_count!r}"
        )
    names: list[Any] = [entry.get("name"), entry.get("accelerator", "")]
    if not all(isinstance(word, str) for word in names) or not names[0]:
        raise BadInputError(f"{VARIABLE}: each node type has a name, as Ray's node group is called")
    return NodeType(
        name=names[0],
        cpus=float(amounts["cpus"]),
        gpus=float(amounts["gpus"]),
        memory_gb=float(amounts["memory_gb"]),
        accelerator=names[1],
        max_count=max_count,
    )
