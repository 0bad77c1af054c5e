"""The page of a sample set: its images by number."""

import threading
from collections import OrderedDict

from orchestrator.artifacts.samples.encoding import Pixels
from orchestrator.artifacts.samples.verify import SampleSet
from orchestrator.errors import BadInputError
from orchestrator.store.objects import ObjectStore
from orchestrator.ui.elements import Markup, el, joined
from orchestrator.ui.jobs_page import job_link

PER_PAGE = 100
_KEPT_SHARDS = 4


class SetImages:
    """Images of sample sets by number; the shards that were read last are kept.

    Args:
        store: Where the sets are.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._kept: OrderedDict[tuple[str, int], Pixels] = OrderedDict()
        self._lock = threading.Lock()  # a page asks for a hundred images of one shard at once

    def image(self, job_id: str, number: int) -> Pixels:
        """Return one image, (1, H, W, C) uint8, verified.

        Raises:
            BadInputError: There is no such image, or it is not drawn yet.
            ShardDamagedError: It is not what was committed.
        """
        with self._lock:
            samples = SampleSet(self._store, job_id)
            size = samples.spec.shard_size
            key = (job_id, number // size)
            if key not in self._kept:
                total = samples.spec.num_samples
                if not 0 <= number < total:
                    raise BadInputError(f"the set has images 0 to {total - 1}, not {number}")
                start = number // size * size
                self._kept[key] = samples.images(start, min(start + size, total))
                while len(self._kept) > _KEPT_SHARDS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            found = self._kept[key][number % size : number % size + 1]
        if not len(found):
            raise BadInputError(f"the set has no image {number}")
        return found


def set_page(samples: SampleSet, job_id: str, start: int) -> Markup:
    """Return a page of images.

    Args:
        samples: The set.
        job_id: Its job.
        start: Number of the first image.

    Raises:
        BadInputError: The set has no such image.
    """
    total = samples.spec.num_samples
    if not 0 <= start < total:
        raise BadInputError(f"the set has images 0 to {total - 1}, not {start}")
    stop = min(start + PER_PAGE, total)
    labels = samples.rule.of(start, stop) if samples.rule else None
    names = samples.rule.class_names if samples.rule else ()
    tiles = []
    for number in range(start, stop):
        label = "" if labels is None else f", class {_class(int(labels[number - start]), names)}"
        image = el(
            "img",
            src=f"/jobs/{job_id}/set/{number}.png",
            alt=f"image {number}{label}",
            loading="lazy",
        )
        caption = el("figcaption", f"{number}{label}")
        tiles.append(el("figure", image, caption, class_="tile"))
    return joined(
        el("p", f"Images {start} to {stop - 1} of {total}, of ", job_link(job_id), "."),
        _pages(job_id, start, total),
        el("div", *tiles, class_="pictures"),
    )


def _class(label: int, names: tuple[str, ...]) -> str:
    return names[label] if 0 <= label < len(names) else "none" if label < 0 else str(label)


def _pages(job_id: str, start: int, total: int) -> Markup:
    address = f"/jobs/{job_id}/set"
    before, after = max(0, start - PER_PAGE), start + PER_PAGE
    field = el("input", name="from", type="number", min="0", max=total - 1, value=start)
    return joined(
        el(
            "nav",
            el("a", "before", href=f"{address}?from={before}", rel="prev") if start else None,
            el("a", "next", href=f"{address}?from={after}", rel="next") if after < total else None,
            aria_label="Pages",
        ),
        el("form", el("label", "from image ", field), el("button", "show"), action=address),
    )
