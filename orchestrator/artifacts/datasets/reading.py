"""How a job file wants its images read: size, channels, range, labels, damaged files."""

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from orchestrator.specs.sections import LabelFile, SourceSpec

Fit = Literal["crop", "pad", "stretch"]
Channels = Literal["auto", "grey", "rgb", "rgba"]
# Raised where the same file gives other pixels than before: what was prepared is read again.
_DECODING = "2"
_DECODERS = ("pillow", "numpy", "tifffile", "imagecodecs", "pyarrow", "zstandard")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What is done to every image on its way into the store.

    Attributes:
        image_size: (H, W) of every image; None keeps the size, which all must share.
        fit: Cut the middle out, lay on a background, or distort.
        channels: What every image becomes; "auto" keeps what it has, which all must share.
        background: Colour below what is transparent or empty.
        value_range: What stands for -1 and 1; "auto" is all that the type can hold.
        skip_damaged: Go on without files that cannot be decoded.
    """

    image_size: tuple[int, int] | None = None
    fit: Fit = "crop"
    channels: Channels = "auto"
    background: tuple[int, int, int] = (255, 255, 255)
    value_range: Literal["auto", "minmax"] | tuple[float, float] = "auto"
    skip_damaged: bool = False

    @property
    def is_plain(self) -> bool:
        """Tell whether pixels stay as they are."""
        return self.image_size is None and self.channels == "auto"

    @property
    def sha256(self) -> str:
        """Hash of these settings and of the versions of what decodes."""
        text = json.dumps([asdict(self), decoder_versions()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def reading_of(dataset: SourceSpec) -> Reading:
    """Return how a job file wants its images read."""
    size, colour = dataset.image_size, dataset.background.removeprefix("#")
    red, green, blue = bytes.fromhex(colour)
    return Reading(
        image_size=(size, size) if isinstance(size, int) else size,
        fit=dataset.fit,
        channels=dataset.channels,
        background=(red, green, blue),
        value_range=dataset.value_range,
        skip_damaged=dataset.skip_damaged,
    )


def label_mode(dataset: SourceSpec) -> str:
    """Return `auto`, `none`, `folders`, or the path of a file with labels as `file:PATH`."""
    if isinstance(dataset.labels, LabelFile):
        return f"file:{dataset.labels.file}"
    return dataset.labels


def decoder_versions() -> dict[str, str]:
    """Return the versions of the libraries that turn files into pixels."""
    found = {"ddpmctl-decoding": _DECODING}
    for name in _DECODERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
