"""Turns any part of a source into images of the wanted size, on all cores of this machine."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orchestrator.artifacts.datasets.array_pictures import decode_array, is_array_picture
from orchestrator.artifacts.datasets.arrays import Block
from orchestrator.artifacts.datasets.damages import Damage
from orchestrator.artifacts.datasets.fitting import fitted
from orchestrator.artifacts.datasets.opened import Source
from orchestrator.artifacts.datasets.pictures import (
    MAX_PIXELS,
    MAX_PIXELS_SCALED,
    decode_picture,
)
from orchestrator.artifacts.datasets.quiet import quiet_decoders
from orchestrator.artifacts.datasets.reading import Reading
from orchestrator.artifacts.datasets.unpacking import damage_translated
from orchestrator.errors import DatasetError

_READ_AHEAD = 8  # images on their way for each thread: a store answers slowly
_MIN_THREADS = 4


def decoded(  # a part of a source, and how it is read
    source: Source,
    reading: Reading,
    start: int,
    stop: int,
    notes: Counter[str],
    num_threads: int | None = None,
) -> Iterator[Block | Damage]:
    """Yield the images of a part of a source in order, and what cannot be read in its place.

    Args:
        source: Where they are from.
        reading: What they are to become.
        start: The first one.
        stop: One past the last one.
        notes: Counts what was done to images that their owner should know.
        num_threads: Threads that read and decode; None for one a core.

    Raises:
        DatasetError: An array is damaged, which can't be passed over.
    """
    if source.blocks is not None:
        for block in source.blocks(start, stop):
            yield _fitted_block(block, reading)
        return
    if source.encoded is None:
        raise TypeError(f"{source.name} has neither pictures nor arrays")
    num_threads = max(_MIN_THREADS, num_threads or len(os.sched_getaffinity(0)))
    running: deque[Future[Block | Damage]] = deque()
    with quiet_decoders(), ThreadPoolExecutor(num_threads, "decode") as pool:
        try:
            pictures = source.encoded(start, stop)
            for index, (name, load) in enumerate(pictures, start=start):
                running.append(pool.submit(_decode_one, index, name, load, reading, notes))
                if len(running) > num_threads * _READ_AHEAD:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _decode_one(
    index: int, name: str, load: Callable[[], bytes], reading: Reading, notes: Counter[str]
) -> Block | Damage:
    max_pixels = MAX_PIXELS if reading.image_size is None else MAX_PIXELS_SCALED
    try:
        with damage_translated(name):
            data = load()
        pixels = fitted(_pixels(data, name, notes, max_pixels), reading, name)
    except DatasetError as error:
        return Damage(index, str(error))
    return Block(index, pixels[np.newaxis], name)


def _pixels(
    data: bytes, name: str, notes: Counter[str], max_pixels: int
) -> Image.Image | NDArray[Any]:
    if is_array_picture(data):
        return decode_array(data, name)
    return decode_picture(data, name, notes, max_pixels)


def _fitted_block(block: Block, reading: Reading) -> Block:
    if reading.is_plain:
        return block
    images = [fitted(image, reading, block.name) for image in block.images]
    return Block(block.start, np.stack(images), block.name)
