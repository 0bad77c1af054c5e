"""Which class image k of a set belongs to: a function of k, decided once for the job.

The rule is stored with what was decided, so it is part of the set's origin, and whoever reads the
set can tell the label of every image without a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ddpm.config import ConfigError, SamplingConfig

if TYPE_CHECKING:  # `submit` makes rules and needs no array for that
    import numpy as np
    from numpy.typing import NDArray

    Labels = NDArray[np.int64]

NO_CLASS = -1


@dataclass(frozen=True)
class LabelRule:
    """The label of image k.

    Attributes:
        kind: "cycle" goes through `classes` again and again; "blocks" has `counts` images of each,
            one class behind the other.
        classes: Numbers of classes; NO_CLASS for images without.
        counts: Of "blocks".
        class_names: Of all classes that the model knows.
    """

    kind: Literal["cycle", "blocks"]
    classes: tuple[int, ...]
    counts: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()

    def of(self, start: int, stop: int) -> "Labels":
        """Return the labels of images start to stop - 1: (stop - start,) int64."""
        import numpy as np

        indices, classes = np.arange(start, stop), np.asarray(self.classes, dtype=np.int64)
        if self.kind == "cycle":
            return classes[indices % len(classes)]
        blocks = np.searchsorted(np.cumsum(self.counts), indices, side="right")
        return classes[np.minimum(blocks, len(classes) - 1)]

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {
            "kind": self.kind,
            "classes": list(self.classes),
            "counts": list(self.counts),
            "class_names": list(self.class_names),
        }


def make_rule(
    config: SamplingConfig, num_classes: int, class_names: Sequence[str] = ()
) -> LabelRule | None:
    """Return the rule that a sampler asks for; None where the model knows no classes.

    Args:
        config: Its `labels`; None is "balanced".
        num_classes: Classes that the model knows.
        class_names: Their names; () where nobody kept them: then they are called by number.

    Raises:
        ConfigError: The model knows no classes, or not such.
    """
    asked = config.labels
    if num_classes == 0:
        if asked not in (None, "none") or config.guidance_scale != 1.0:
            field = "labels" if asked not in (None, "none") else "guidance_scale"
            value = asked if field == "labels" else config.guidance_scale
            raise ConfigError(f"sampling.{field}", value, "left out: the model knows no classes")
        return None
    names = tuple(class_names) or tuple(map(str, range(num_classes)))
    if asked is None or asked == "balanced":
        return LabelRule("cycle", tuple(range(num_classes)), (), names)
    if asked == "none":
        return LabelRule("cycle", (NO_CLASS,), (), names)
    if isinstance(asked, dict):
        classes = tuple(_number(name, names) for name in asked)
        return LabelRule("blocks", classes, tuple(asked.values()), names)
    return LabelRule("cycle", tuple(_number(name, names) for name in asked), (), names)


def by_class(
    images: "NDArray[np.uint8]", rule: LabelRule | None
) -> "tuple[NDArray[np.uint8], int | None]":
    """Return a set's first images in rows of one class each, and the columns of such a grid.

    Args:
        images: (N, H, W, C) uint8.
        rule: Their labels; None leaves them as they are. What does not fill a row for each class
            is left out.
    """
    import numpy as np

    labels = rule.of(0, len(images)) if rule else np.zeros(0, dtype=np.int64)
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        return images, None
    columns = int(counts.min())
    rows = [np.flatnonzero(labels == label)[:columns] for label in classes]
    return images[np.concatenate(rows)], columns


def _number(name: str | int, names: Sequence[str]) -> int:
    if name in names:
        return names.index(str(name))
    number = int(name) if str(name).isdigit() else -1
    if not 0 <= number < len(names):
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise ConfigError("sampling.labels", name, f"one of the model's classes ({shown})")
    return number
