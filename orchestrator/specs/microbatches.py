"""How many images of a shard go through the network together where nobody wrote it."""

from collections.abc import Mapping
from typing import Any

from ddpm.config import SamplingConfig

_DEFAULT = SamplingConfig().microbatch_size
_LEAST = _DEFAULT // 4  # smaller ones take many times as long: better refused than drawn slowly


def with_fitting_microbatch(value: dict[str, Any]) -> dict[str, Any]:
    """Return what a sample job is made of, with a microbatch that parts its shards evenly.

    What was written stays, and so does the default wherever it fits: other sizes give other bits.
    Else it becomes the largest divisor of `shard_size` below it, which is then part of the job.
    Where all of them are small, as a prime's, nothing is changed, and the job is refused.

    Args:
        value: As somebody wrote it; what is wrong with it is found later.
    """
    shard_size, sampling = value.get("shard_size"), value.get("sampling", {})
    if not isinstance(shard_size, int) or shard_size < 1 or shard_size % _DEFAULT == 0:
        return value
    most = min(_DEFAULT, shard_size)
    size = next(s for s in range(most, 0, -1) if shard_size % s == 0)
    if size < min(_LEAST, most):
        return value
    if isinstance(sampling, Mapping) and "microbatch_size" not in sampling:
        return {**value, "sampling": {**sampling, "microbatch_size": size}}
    return value
