"""The bound of held-out images that a training ends with, image by image, for curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.store.codec import Codec


@dataclass(frozen=True, kw_only=True)
class ImageTerms:
    """The terms of one image's bound that were drawn.

    Attributes:
        image: Its number among the held-out images.
        timesteps: Which t; none of a model without a chain of steps.
        terms: L_{t-1} at each of them, in bits per dimension.
    """

    image: int = 0
    timesteps: Sequence[int] = ()
    terms: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class HeldOutBound:
    """What a training's last model is worth on images that it never saw.

    Attributes:
        step: Training steps that it took.
        means: The bound, its parts and their standard errors, by the names of the metrics.
        images: The terms of each image.
        num_levels: Levels of a pixel; None of images of real numbers.
    """

    step: int = 0
    means: Mapping[str, float] = field(default_factory=dict)
    images: Sequence[ImageTerms] = ()
    num_levels: int | None = None


HELD_OUT_BOUND = Codec(HeldOutBound, "bound of held-out images")
