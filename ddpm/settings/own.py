"""A network that another Python package brings, as a job file names it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from ddpm.settings.classes import ToldClasses, check_image_channels
from ddpm.settings.fields import require
from ddpm.settings.network import UNetConfig

OWN_NETWORK = "network"
"""The key by which such a configuration is told from that of the U-Net."""


@dataclass(frozen=True, kw_only=True)
class OwnConfig(ToldClasses):
    """Which network of another package, and its settings there.

    Attributes:
        network: Its name in the entry point group `ddpmctl.networks`.
        num_classes: Classes that the network is conditioned on, 0 for none; "auto" takes those
            of the data set.
        settings: The fields of the package's own configuration, as plain values. What they may be,
            the package says: `ddpm.network.own` reads them.
    """

    family: ClassVar[Literal["ddpm"]] = "ddpm"  # what its output means is the diffusion's to say

    network: str
    num_classes: int | Literal["auto"] = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        is_name = isinstance(self.network, str) and bool(self.network)
        require(is_name, OWN_NETWORK, self.network, "the name of an installed network")
        classes = self.num_classes
        is_whole = isinstance(classes, int) and not isinstance(classes, bool)
        message = "auto, or a whole number"
        require(classes == "auto" or is_whole, "num_classes", classes, message)
        self.check_classes()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what a job file or `to_json` gives: the settings beside the name."""
        settings = {k: v for k, v in values.items() if k not in (OWN_NETWORK, "num_classes")}
        classes = values.get("num_classes", 0)
        return cls(network=values[OWN_NETWORK], num_classes=classes, settings=settings)

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values: the settings beside the name, as a job file has them."""
        return {OWN_NETWORK: self.network, "num_classes": self.num_classes, **self.settings}

    def check_image_shape(self, image_shape: tuple[int, int, int]) -> None:
        """Raise ConfigError unless any network takes (C, H, W) images; the package may refuse."""
        check_image_channels(image_shape[0])


NetworkConfig = UNetConfig | OwnConfig


def network_to_json(config: NetworkConfig) -> dict[str, object]:
    """Return a network's configuration as JSON values."""
    return config.to_json() if isinstance(config, OwnConfig) else dataclasses.asdict(config)


def network_name(config: NetworkConfig) -> str:
    """Return the name of another package's network; "" for one of ours."""
    return config.network if isinstance(config, OwnConfig) else ""
