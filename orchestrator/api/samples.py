"""A sample set as a program sees it: images by number."""

import base64
import html

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.images import image_grid
from orchestrator.artifacts.samples.verify import SampleSet, SetReport, verify_samples
from orchestrator.counts import counted
from orchestrator.errors import BadInputError
from orchestrator.store.objects import ObjectStore

_SHOWN = 64


class Samples:
    """The set that a sample job draws, be it whole or not yet; a notebook shows its first images.

    Args:
        store: Where it is.
        job_id: The sample job's id.

    Raises:
        BadInputError: The job draws no samples.
        JobNotFoundError: There is no such job.
    """

    def __init__(self, store: ObjectStore, job_id: str) -> None:
        self.job_id = job_id
        self._store = store
        self._set = SampleSet(store, job_id)

    def __len__(self) -> int:
        """Return how many images there have to be."""
        return self._set.spec.num_samples

    def __repr__(self) -> str:
        return f"Samples({self.job_id!r}, {counted(len(self), 'image')})"

    def images(self, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Return images start to stop - 1, verified.

        Args:
            start: Number of the first image.
            stop: One past the last; None for all that follow.

        Returns:
            (stop - start, H, W, C) uint8.

        Raises:
            BadInputError: There are no such images, or they are not drawn yet.
            ShardDamagedError: They are not what was committed.
        """
        return self._set.images(start, len(self) if stop is None else stop)

    def labels(self, start: int = 0, stop: int | None = None) -> NDArray[np.int64] | None:
        """Return the classes of images start to stop - 1, (stop - start,) int64.

        -1 is no class; None of a set that was drawn without labels.
        """
        rule = self._set.rule
        return rule.of(start, len(self) if stop is None else stop) if rule else None

    def verify(self) -> SetReport:
        """Reread the whole set and say what is wrong with it."""
        return verify_samples(self._store, self.job_id)

    def _repr_html_(self) -> str:
        """Return the first images as a grid, for notebooks."""
        caption = f"{html.escape(self.job_id)}: {counted(len(self), 'image')}"
        try:
            shown = self.images(0, min(_SHOWN, len(self)))
        except BadInputError as error:
            return f"<p>{caption}; {html.escape(str(error))}</p>"
        png = base64.b64encode(image_grid(shown)).decode()
        return (
            f'<figure><img alt="the first {len(shown)} images of {html.escape(self.job_id)}" '
            f'src="data:image/png;base64,{png}"><figcaption>{caption}</figcaption></figure>'
        )
