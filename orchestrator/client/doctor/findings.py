"""What a look at a part of the surroundings found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        part: `store`, `ray` or `mlflow`.
        check: What was looked at, in a few words.
        ok: Whether it is as it must be.
        detail: What was seen.
        remedy: What to do about it; empty if nothing is to be done.
    """

    part: str
    check: str
    ok: bool
    detail: str
    remedy: str = ""
