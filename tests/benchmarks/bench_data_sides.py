"""What `bench_data` measures, each side in a process of its own: `SIDE FOLDER [ARGUMENT]`.

Every side of a task sees the same files and leaves the same pixels. Imports, and listing where
others get a list, are outside of the clock; what is ours in every step (listing, hashes, chunks,
commits, the manifest) is inside. A side prints JSON: images, seconds on the clock, seconds of a
processor with those of its children, and the most memory of its own process (VmHWM).
"""

import hashlib
import importlib
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from orchestrator.artifacts.datasets.arrays import Block
from orchestrator.artifacts.datasets.chunk_cache import CachedChunks
from orchestrator.artifacts.datasets.ingest import complete, ingest
from orchestrator.artifacts.datasets.left_out import Survey
from orchestrator.artifacts.datasets.manifest import read_manifest
from orchestrator.artifacts.datasets.node_cache import fetch
from orchestrator.artifacts.datasets.opened import Source
from orchestrator.artifacts.datasets.preparing import Preparation
from orchestrator.artifacts.datasets.reading import Reading
from orchestrator.store.objects import StoredObject
from orchestrator.store.s3_store import open_store
from tests.support.fakes import MemoryStore
from tests.support.memory import peak_mb

SIZE = 64
BATCH = 128
WORKERS = 2
Row = dict[str, Any]


class LightStore(MemoryStore):
    """A store that forgets the bodies of chunks, so that it has no memory of its own."""

    def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Keep all but chunks."""
        kept = b"" if "/chunks/" in key else body
        return super().put(key, kept, if_absent=if_absent, if_match=if_match)


def cpu_s() -> float:
    """Return the seconds of a processor that this process and its ended children took."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def scaled(image: Image.Image) -> Image.Image:
    """Return the middle of a picture at the wanted size, by the filter that preparing uses."""
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


def pillow_loop(paths: list[Path]) -> int:
    """Decode and scale files one after the other, and throw them away."""
    for path in paths:
        with Image.open(path) as image:
            np.asarray(scaled(image))
    return len(paths)


def prepare_pillow(folder: Path) -> int:
    """A loop on each core."""
    paths, cores = sorted(folder.glob("*.jpg")), len(os.sched_getaffinity(0))
    if cores == 1:
        return pillow_loop(paths)
    with ProcessPoolExecutor(cores) as pool:
        return sum(pool.map(pillow_loop, [paths[core::cores] for core in range(cores)]))


def prepare_here(folder: Path) -> int:
    """From the folder to the manifest."""
    reading = Reading(image_size=(SIZE, SIZE), channels="rgb")
    return ingest(str(folder), LightStore(), folder.parent / "cache", reading=reading).num_images


def prepare_webdataset(folder: Path) -> int:
    """A shard for each core, by WebDataset's own pipeline."""
    shards, cores = sorted(folder.glob("*.tar")), len(os.sched_getaffinity(0))
    if cores == 1:
        return sum(map(webdataset_loop, shards))
    with ProcessPoolExecutor(cores) as pool:
        return sum(pool.map(webdataset_loop, shards))


def webdataset_loop(shard: Path) -> int:
    """Decode and scale the pictures of one shard."""
    import webdataset as wds

    pictures = wds.WebDataset(str(shard), shardshuffle=False).decode("pil").to_tuple("jpg")
    return sum(1 for (image,) in pictures if np.asarray(scaled(image)).size)


def reader(path: Path, num_images: int) -> int:
    """Read batches in a training's order, as a worker does."""
    import torch

    from ddpm.training.data import BatchReader, ImageDataset
    from ddpm.training.order import BatchOrder

    images = ImageDataset.open(path)
    order = BatchOrder(len(images), BATCH, seed=0)
    steps = num_images // BATCH
    with BatchReader(images, order, np.arange(BATCH), torch.device("cpu")) as batches:
        return sum(len(batches.batch(step).images) for step in range(steps))


def read_warm(folder: Path, num_images: int) -> int:
    """From the node's cache."""
    return reader(folder / "images.npy", num_images)


def read_cold(folder: Path, num_images: int) -> int:
    """From the store to the node's cache, proved, and then once through."""
    store, cache = open_store(os.environ["DDPMCTL_STORE"]), folder / "node"
    ref = ingest(str(folder / "images.npy"), store, folder / "cache")
    began_at = time.monotonic()
    path = fetch(store, ref.images, cache)
    count = reader(path, min(num_images, ref.num_images))
    told["seconds"] = time.monotonic() - began_at
    return count


class SlowStore(MemoryStore):
    """A store that gives a gigabyte a second to all who ask, together."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = threading.Lock()

    def get(self, key: str) -> StoredObject:
        """Return an object in its time."""
        found = super().get(key)
        with self._turn:
            time.sleep(len(found.body) / 1e9)
        return found


def read_blocks(folder: Path, num_images: int) -> int:
    """From a window of chunks: an epoch over the store, then one with all chunks in the cache."""
    import torch

    from ddpm.training.data import BatchReader, ImageDataset

    images = np.random.default_rng(0).integers(0, 256, (num_images, 32, 32, 3), np.uint8)
    np.save(folder / "blocks.npy", images)
    store = SlowStore()
    ref = ingest(str(folder / "blocks.npy"), store, folder / "cache")
    del images
    chunks = CachedChunks(store, read_manifest(store, ref.images), folder / "blocks")
    dataset = ImageDataset.of_blocks(chunks, window=2)
    order, steps = dataset.order(BATCH, 0), num_images // BATCH
    with closing(chunks), BatchReader(dataset, order, np.arange(BATCH), torch.device("cpu")) as at:
        for name, epoch in (("cold", 0), ("warm", 1), ("warm", 2)):
            began_at, computed_s, waits = time.monotonic(), cpu_s(), []
            for step in range(epoch * steps, (epoch + 1) * steps):
                asked_at = time.monotonic()
                at.batch(step)
                waits.append(time.monotonic() - asked_at)
            told[f"{name}_per_s"] = num_images / (time.monotonic() - began_at)
            told[f"{name}_per_core_s"] = num_images / (cpu_s() - computed_s)
            told[f"{name}_longest_wait_s"] = max(waits)
    return num_images


def _loader(items: Any, num_images: int) -> int:
    import torch
    from torch.utils.data import DataLoader

    torch.manual_seed(0)
    count = 0
    batches = DataLoader(items, BATCH, shuffle=True, num_workers=WORKERS, drop_last=True)
    while count < num_images // BATCH * BATCH:
        for batch in batches:
            count += len(batch)
    return count


class Files:
    """Pictures of a folder, as people write it for torch."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.png"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        import torch

        with Image.open(self.paths[index]) as image:
            return torch.from_numpy(np.array(image.convert("RGB")))


class Rows:
    """Rows of a mapped array, as people write it for torch."""

    def __init__(self, path: Path) -> None:
        self.images = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        import torch

        return torch.from_numpy(np.array(self.images[index]))


def read_loader_files(folder: Path, num_images: int) -> int:
    """Torch's DataLoader over the files."""
    return _loader(Files(folder / "png"), num_images)


def read_loader_array(folder: Path, num_images: int) -> int:
    """Torch's DataLoader over the same pixels as one array."""
    return _loader(Rows(folder / "images.npy"), num_images)


def prepare_folder(folder: Path, num_images: int) -> int:
    """A folder of many small files."""
    return ingest(str(folder / f"png-{num_images}"), LightStore(), folder / "cache").num_images


def prepare_synthetic(folder: Path, num_images: int) -> int:
    """A source without files: what remains is our own work."""
    pool = np.random.default_rng(0).integers(0, 256, (4096, 32, 32, 3), np.uint8)

    def blocks(start: int, stop: int) -> Iterator[Block]:
        for first in range(start, stop, len(pool)):
            yield Block(first, pool[: min(len(pool), stop - first)], "synthetic")

    source = Source("synthetic", num_images, Survey(), blocks=blocks, stamp="1")
    return complete(Preparation(source, Reading(), LightStore())).num_images


def hash_alone(folder: Path, num_images: int) -> int:
    """SHA-256 of as many bytes, twice: the floor of any preparation that proves what it stores."""
    piece = bytes(4096 * 3072)
    for _ in range(2 * num_images // 4096):
        hashlib.sha256(piece).digest()
    return num_images


SIDES: dict[str, Callable[..., int]] = {
    side.__name__: side
    for side in (
        prepare_pillow,
        prepare_here,
        prepare_webdataset,
        read_warm,
        read_cold,
        read_blocks,
        read_loader_files,
        read_loader_array,
        prepare_folder,
        prepare_synthetic,
        hash_alone,
    )
}
_IMPORTS = {
    "prepare_webdataset": ["webdataset"],
    "read_warm": ["torch", "ddpm.training.data"],
    "read_cold": ["torch", "ddpm.training.data"],
    "read_blocks": ["torch", "ddpm.training.data"],
    "read_loader_files": ["torch", "torch.utils.data"],
    "read_loader_array": ["torch", "torch.utils.data"],
}
told: Row = {}


def main() -> None:
    """Run one side."""
    side, folder, *rest = sys.argv[1:]
    for name in _IMPORTS.get(side, ()):
        importlib.import_module(name)
    began_at, computed_s = time.monotonic(), cpu_s()
    count = SIDES[side](Path(folder), *map(int, rest))
    row = {"images": count, "seconds": time.monotonic() - began_at, "cpu_s": cpu_s() - computed_s}
    print(json.dumps({**row, "peak_mb": peak_mb(), **told}))


if __name__ == "__main__":
    main()
