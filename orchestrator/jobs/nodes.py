"""What the orchestrator saw last of the cluster's nodes: what `nodes` reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.errors import OrchestratorError
from orchestrator.scheduling.nodes import NodeType
from orchestrator.store import keys
from orchestrator.store.codec import Codec
from orchestrator.store.objects import ObjectStore


@dataclass(frozen=True, kw_only=True)
class AvoidedBy:
    """A job that keeps away from a node.

    Attributes:
        job_id: The job.
        why: What its attempts there ended with, and which they were.
    """

    job_id: str
    why: str


@dataclass(frozen=True, kw_only=True)
class NodeEntry:
    """A node that Ray calls alive.

    Attributes:
        node_id: Its Ray id.
        host: Its name.
        cpus: CPUs that it has.
        gpus: GPUs that it has.
        memory_gb: Memory that Ray lends, in GB of 10^9 bytes.
        free_cpus: CPUs that nobody holds, by Ray's count.
        free_gpus: GPUs likewise.
        free_memory_gb: Memory that nobody has asked for by number.
        accelerator: Type of its GPUs; "" for none or unknown.
        labels: Its labels.
        is_draining: It is about to leave, and nothing new is placed on it.
        workers: Job to the number of its workers there.
        avoided_by: Jobs that keep away from it.
    """

    node_id: str
    host: str = ""
    cpus: float = 0.0
    gpus: float = 0.0
    memory_gb: float = 0.0
    free_cpus: float = 0.0
    free_gpus: float = 0.0
    free_memory_gb: float = 0.0
    accelerator: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    is_draining: bool = False
    workers: Mapping[str, int] = field(default_factory=dict)
    avoided_by: tuple[AvoidedBy, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NodeList:
    """All of them.

    Attributes:
        at: When they came to look as they do, by the store's clock.
        nodes: In order of host and id.
        types: What the cluster's autoscaler may start.
    """

    at: datetime
    nodes: tuple[NodeEntry, ...]
    types: tuple[NodeType, ...] = ()


NODES = Codec(NodeList, "list of nodes")


def read_nodes(store: ObjectStore) -> NodeList:
    """Return the nodes as the orchestrator saw them last.

    Raises:
        OrchestratorError: No orchestrator ever looked for them.
    """
    found = NODES.value(store, keys.NODES)
    if found is None:
        raise OrchestratorError(
            "no orchestrator has looked at this cluster yet; run `ddpmctl orchestrator ensure`"
        )
    return found
