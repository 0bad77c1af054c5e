"""What an attempt is doing. Pure."""

from enum import StrEnum


class Phase(StrEnum):
    """What an attempt does at a moment, as its heartbeat says; work is what all of it is for."""

    STARTING = "starting"
    SMOKE = "smoke"
    RUNNING = "running"
    SAVING = "saving"
    EVALUATING = "evaluating"
    PROVING = "proving"

    @classmethod
    def _missing_(cls, _: object) -> "Phase":
        """Take a word of another version for work: whoever says it has begun."""
        return cls.RUNNING
