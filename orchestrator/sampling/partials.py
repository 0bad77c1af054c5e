"""Shards that were left half drawn: (x_t, step) and the finished microbatches, kept and loaded.

What a later attempt goes on from must have the same origin and range, or it is not used: nothing
here can change a bit of the set.
"""

import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ddpm.process.sampling import ChainState
from orchestrator.artifacts.samples.commits import SetOrigin
from orchestrator.artifacts.samples.encoding import Pixels
from orchestrator.errors import ObjectNotFoundError, StoredFormError
from orchestrator.jobs.units import Shard
from orchestrator.sampling.drawing import UnfinishedShard
from orchestrator.store.codec import Codec
from orchestrator.store.keys import AttemptPaths
from orchestrator.store.objects import ObjectStore

logger = logging.getLogger(__name__)

# As they are stored since 0.1.
_DESCRIPTION, _TRAJECTORIES, _FRAMES = "canvas", "films", "film"


@dataclass(frozen=True, kw_only=True)
class PartialShard:
    """What a file of tensors says of the half-drawn shard that they are.

    Attributes:
        origin: What fixed its bits.
        range: Its first image, and one past its last.
        step_index: Steps that the images which were cut off have taken.
        seconds: Worker-seconds that it took so far.
    """

    origin: SetOrigin
    range: tuple[int, int]
    step_index: int
    seconds: float


_PARTIAL_SHARD = Codec(PartialShard, "half-drawn shard")


def save_partial(
    store: ObjectStore, paths: AttemptPaths, unfinished: UnfinishedShard, origin: SetOrigin
) -> str | None:
    """Keep a half-drawn shard and return its key; None if there is nothing of it."""
    if unfinished.chain is None and not unfinished.pixels:
        return None
    arrays: dict[str, Pixels | np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}
    if unfinished.chain is not None:
        arrays["x"] = unfinished.chain.x.detach().cpu().contiguous().numpy()
        if unfinished.chain.memory is not None:
            arrays["memory"] = unfinished.chain.memory.detach().cpu().contiguous().numpy()
    for name, parts in _lists(unfinished).items():
        arrays |= {f"{name}.{number}": array for number, array in enumerate(parts)}
    described = PartialShard(
        origin=origin,
        range=(unfinished.shard.start, unfinished.shard.stop),
        step_index=unfinished.chain.step_index if unfinished.chain else 0,
        seconds=unfinished.seconds,
    )
    body = save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        metadata={_DESCRIPTION: _PARTIAL_SHARD.encode(described).decode()},
    )
    key = f"{paths.partial}shard-{unfinished.shard.index:06d}-{secrets.token_hex(4)}.safetensors"
    store.put(key, body)
    return key


def load_partial(
    store: ObjectStore, key: str, shard: Shard, origin: SetOrigin
) -> UnfinishedShard | None:
    """Return a half-drawn shard, or None where it is gone, damaged or of another set."""
    try:
        body = store.get(key).body
        described = _description(body, key)
        if described.origin != origin:
            raise ValueError("it has another origin")
        if described.range != (shard.start, shard.stop):
            raise ValueError("it has another range")
        return _unfinished(shard, load(body), described)
    except (
        ObjectNotFoundError,
        SafetensorError,
        StoredFormError,
        ValueError,
        KeyError,
        TypeError,
    ) as error:
        logger.warning("shard=%d begins anew, not from %s: %s", shard.index, key, error)
        return None


def _lists(unfinished: UnfinishedShard) -> Mapping[str, list[Pixels]]:
    return {
        "pixels": unfinished.pixels,
        _TRAJECTORIES: unfinished.trajectories,
        _FRAMES: unfinished.frames,
    }


def _description(body: bytes, key: str) -> PartialShard:
    length = int.from_bytes(body[:8], "little")
    text: str = json.loads(body[8 : 8 + length])["__metadata__"][_DESCRIPTION]
    return _PARTIAL_SHARD.decode(text.encode(), key)


def _unfinished(
    shard: Shard, arrays: Mapping[str, np.ndarray], described: PartialShard
) -> UnfinishedShard:
    def numbered(name: str) -> list[Pixels]:
        keys = [key for key in arrays if key.startswith(f"{name}.")]
        return [arrays[key] for key in sorted(keys, key=lambda key: int(key.split(".")[1]))]

    chain = None
    if "x" in arrays:
        memory = torch.from_numpy(arrays["memory"].copy()) if "memory" in arrays else None
        x, step_index = torch.from_numpy(arrays["x"].copy()), described.step_index
        chain = ChainState(x, step_index, memory)
    return UnfinishedShard(
        shard=shard,
        pixels=numbered("pixels"),
        chain=chain,
        trajectories=numbered(_TRAJECTORIES),
        frames=numbered(_FRAMES),
        seconds=described.seconds,
    )
