"""`ray start`, with patience: `python -m orchestrator.stack.ray_start start --head ...`.

Ray ends a head whose raylet is not in its table after 30 s; on a busy machine that takes longer,
and no setting of Ray's changes it. Here the look-up of a node waits itself, as
long as PATIENCE_VARIABLE says.
"""

import os
import time
from collections.abc import Callable
from typing import Any

PATIENCE_VARIABLE = "RAY_raylet_start_wait_time_s"  # which Ray's own processes read, too
_POLL_S = 0.2


def patient(
    look: Callable[..., Any],
    within_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Callable[..., Any]:
    """Return a look that is tried again until it succeeds or the time is up.

    Args:
        look: Raises RuntimeError while there is nothing to see.
        within_s: Seconds, from the first try.
        clock: For tests.
        sleep: For tests.
    """

    def look_again(*arguments: Any, **options: Any) -> Any:
        deadline = clock() + within_s
        while True:
            try:
                return look(*arguments, **options)
            except RuntimeError:
                if clock() >= deadline:
                    raise
                sleep(_POLL_S)

    return look_again


def main() -> None:
    """Entry point: the arguments of `ray`."""
    from ray._private import services
    from ray.scripts import scripts

    within_s = float(os.environ.get(PATIENCE_VARIABLE, "30"))
    services.get_node = patient(services.get_node, within_s)
    scripts.main()


if __name__ == "__main__":
    main()
