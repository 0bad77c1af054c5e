"""How a process of an attempt is registered in the store, so that its end can be proven."""

from dataclasses import dataclass

from orchestrator.cluster.process_search import ProcessRef
from orchestrator.store.codec import Codec


@dataclass(frozen=True)
class RegisteredProcess(ProcessRef):
    """A process, with what people want to know of it.

    Attributes:
        python: The version that it runs.
    """

    python: str = ""


REGISTERED_PROCESS = Codec(RegisteredProcess, "process")
