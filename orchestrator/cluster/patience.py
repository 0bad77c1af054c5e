"""How long something that starts may take: one setting for all that waits for it."""

import math
import os

from orchestrator.errors import BadInputError

VARIABLE = "DDPMCTL_PATIENCE_S"
DEFAULT_S = 120.0


def patience_s() -> float:
    """Return DDPMCTL_PATIENCE_S, or what is right on most machines.

    Raises:
        BadInputError: It is no number of seconds.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return DEFAULT_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise BadInputError(f"{VARIABLE} must be a number of seconds above 0, not {text!r}")
    return seconds
