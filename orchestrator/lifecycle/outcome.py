"""What an attempt comes to."""

from dataclasses import dataclass

from orchestrator.lifecycle.state import Reason


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a driver says of its attempt.

    Attributes:
        succeeded: Whether the job is done.
        stopped: Whether it ended since it was told to, having saved its work.
        reason: Why it did not succeed.
        message: One line for a reader.
        progress: Steps in the last committed checkpoint, or images in committed shards.
        failed_node_ids: Nodes to blame.
    """

    succeeded: bool = False
    stopped: bool = False
    reason: Reason | None = None
    message: str = ""
    progress: int = 0
    failed_node_ids: tuple[str, ...] = ()
