"""Shards that were left half drawn: (x_t, step) and the finished microbatches, kept and loaded.

What a later attempt goes on from must have the same origin and range, or it is not used: nothing
here can change a bit of the set.
"""

import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ddpm.process.sampling import ChainState
from orchestrator.artifacts.samples.commits import SetOrigin
from orchestrator.artifacts.samples.encoding import Pixels
from orchestrator.errors import ObjectNotFoundError
from orchestrator.jobs.units import Shard
from orchestrator.sampling.drawing import UnfinishedShard
from orchestrator.store.keys import AttemptPaths
from orchestrator.store.objects import ObjectStore

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
# As they are stored since 0.1.
_DESCRIPTION, _TRAJECTORIES, _FRAMES = "canvas", "films", "film"


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
    described = {
        "format_version": FORMAT_VERSION,
        "origin": asdict(origin),
        "range": [unfinished.shard.start, unfinished.shard.stop],
        "step_index": unfinished.chain.step_index if unfinished.chain else 0,
        "seconds": unfinished.seconds,
    }
    body = save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        metadata={_DESCRIPTION: json.dumps(described)},
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
        described = _metadata(body)
        if described["origin"] != asdict(origin):
            raise ValueError("it has another origin")
        if described["range"] != [shard.start, shard.stop]:
            raise ValueError("it has another range")
        return _unfinished(shard, load(body), described)
    except (ObjectNotFoundError, SafetensorError, ValueError, KeyError, TypeError) as error:
        logger.warning("shard=%d begins anew, not from %s: %s", shard.index, key, error)
        return None


def _lists(unfinished: UnfinishedShard) -> Mapping[str, list[Pixels]]:
    return {
        "pixels": unfinished.pixels,
        _TRAJECTORIES: unfinished.trajectories,
        _FRAMES: unfinished.frames,
    }


def _metadata(body: bytes) -> dict[str, object]:
    length = int.from_bytes(body[:8], "little")
    described: dict[str, object] = json.loads(
        json.loads(body[8 : 8 + length])["__metadata__"][_DESCRIPTION]
    )
    if described["format_version"] != FORMAT_VERSION:
        raise ValueError(f"it has format version {described['format_version']}")
    return described


def _unfinished(
    shard: Shard, arrays: Mapping[str, np.ndarray], described: Mapping[str, object]
) -> UnfinishedShard:
    def numbered(name: str) -> list[Pixels]:
        keys = [key for key in arrays if key.startswith(f"{name}.")]
        return [arrays[key] for key in sorted(keys, key=lambda key: int(key.split(".")[1]))]

    chain = None
    if "x" in arrays:
        memory = torch.from_numpy(arrays["memory"].copy()) if "memory" in arrays else None
        x, step_index = torch.from_numpy(arrays["x"].copy()), int(str(described["step_index"]))
        chain = ChainState(x, step_index, memory)
    return UnfinishedShard(
        shard=shard,
        pixels=numbered("pixels"),
        chain=chain,
        trajectories=numbered(_TRAJECTORIES),
        frames=numbered(_FRAMES),
        seconds=float(str(described["seconds"])),
    )
