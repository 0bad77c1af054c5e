"""The nodes of a cluster as the scheduler sees them: those that are there, and those that could be.

CPUs and GPUs are numbers as Ray counts them, fractions allowed; memory is in GB of 10^9 bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeCapacity:
    """What a node has, and what of it nobody uses.

    Attributes:
        node_id: Its Ray id.
        cpus: CPUs that it has.
        gpus: GPUs that it has.
        free_cpus: CPUs that neither our running or stopping jobs nor anybody else holds.
        free_gpus: GPUs likewise.
        unplaced_cpus: CPUs that no placement of ours names: what could be free at most; None
            where that is not known.
        unplaced_gpus: GPUs likewise.
        memory_gb: Memory that Ray lends to those who ask for it by number.
        free_memory_gb: What of it nobody has asked for.
        unplaced_memory_gb: Memory likewise.
        accelerator: Type of its GPUs as Ray calls it: "H100"; "" for none or unknown.
        labels: What it was labelled with when Ray was started on it.
        host: Its name, for a reader.
        is_draining: It is about to leave: nothing new is placed on it.
        is_promised: It is not there: the autoscaler could start it, with labels nobody knows yet.
    """

    node_id: str
    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float
    unplaced_cpus: float | None = None
    unplaced_gpus: float | None = None
    memory_gb: float = 0.0
    free_memory_gb: float = 0.0
    unplaced_memory_gb: float | None = None
    accelerator: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    is_draining: bool = False
    is_promised: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeType:
    """Nodes that the cluster's autoscaler may start.

    Attributes:
        name: Its name.
        cpus: CPUs of each.
        gpus: GPUs of each.
        memory_gb: Memory of each that Ray lends.
        accelerator: Type of its GPUs; "" for none or unknown.
        max_count: The most that there may be at once.
    """

    name: str
    cpus: float
    gpus: float
    memory_gb: float
    accelerator: str
    max_count: int
