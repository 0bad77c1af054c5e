"""What all networks have in common: the classes of their labels, and the images they take."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from ddpm.settings.fields import ConfigError, require

MAX_IMAGE_CHANNELS = 64
MAX_CLASSES = 1_000_000


class ToldClasses:
    """A configuration with a field `num_classes`: a number, or "auto" for that of the data set."""

    if TYPE_CHECKING:

        @property
        def num_classes(self) -> int | Literal["auto"]:
            """Classes that the network is conditioned on."""

    def check_classes(self) -> None:
        """Raise ConfigError unless `num_classes` is a number of classes or "auto"."""
        classes = self.num_classes
        is_number = classes == "auto" or 0 <= classes <= MAX_CLASSES
        require(is_number, "num_classes", classes, f"auto, or a number up to {MAX_CLASSES}")

    def for_classes(self, num_classes: int) -> Self:
        """Return the sizes for a data set with so many classes, 0 for one without labels.

        Raises:
            ConfigError: The network has labels and the data set none, or more than the network.
        """
        asked = self.num_classes
        fits = asked == 0 or (num_classes > 0 and (asked == "auto" or asked >= num_classes))
        needed = f"at least {num_classes}, the classes of the data set"
        needed = needed if num_classes else "0, since the data set has no labels"
        require(fits, "num_classes", asked, needed)
        if asked != "auto":
            return self
        return cast(Self, replace(cast(Any, self), num_classes=num_classes))

    @property
    def known_classes(self) -> int:
        """Classes, once they are known: 0 for a network without labels.

        Raises:
            ConfigError: The data set has not been asked yet.
        """
        if self.num_classes == "auto":
            raise ConfigError("num_classes", "auto", "a number by now: that of the data set")
        return self.num_classes


def check_image_channels(channels: int) -> None:
    """Raise ConfigError unless images of so many channels can be trained on."""
    fits = 1 <= channels <= MAX_IMAGE_CHANNELS
    require(fits, "image channels", channels, f"1 to {MAX_IMAGE_CHANNELS}")
