"""What a run came to, as a table for people and JSON for machines."""

import statistics
from collections.abc import Mapping, Sequence


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Return how many there are, their median, and the worst; zeros of none."""
    if not seconds:
        return {"count": 0, "median_s": 0.0, "worst_s": 0.0}
    return {
        "count": len(seconds),
        "median_s": round(statistics.median(seconds), 1),
        "worst_s": round(max(seconds), 1),
    }


def table(faults: Mapping[str, int]) -> str:
    """Return faults by kind, the commonest first, and their sum."""
    rows = sorted(faults.items(), key=lambda row: (-row[1], row[0]))
    lines = [f"{count:>7}  {kind}" for kind, count in rows]
    return "\n".join([*lines, f"{sum(faults.values()):>7}  in all"])
