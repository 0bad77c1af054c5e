"""Whether a job that waits can start. Pure."""

from enum import StrEnum


class Verdict(StrEnum):
    """Whether a job can start."""

    STARTS_NEXT = "starts next"
    NOT_NOW = "not now"
    WAITS_FOR_NODES = "waits for nodes to start"
    NEVER = "never"
