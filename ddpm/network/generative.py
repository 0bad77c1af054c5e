"""What every network that can be trained and drawn from has, whatever its family."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ddpm.config import NetworkConfig


class GenerativeNetwork(nn.Module, ABC):
    """A network that a training changes and a chain asks.

    Attributes:
        config: Its sizes.
        image_shape: (C, H, W) of the images.
        is_own: Whether another package brings it: nothing is known of its layers then, and what
            it draws by chance while training comes from torch's generator.
    """

    is_own: bool = False
    config: NetworkConfig
    image_shape: tuple[int, int, int]

    @property
    def knows_labels(self) -> bool:
        """Whether it is conditioned on classes."""
        return self.config.known_classes > 0

    @property
    def null_label(self) -> int:
        """The label that stands for no class."""
        return self.config.known_classes

    @abstractmethod
    def recompute_activations(self, asked: bool) -> None:
        """Have parts keep their inputs alone, and compute the rest again for the gradient."""

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return what the network predicts of x_t: (B, C, H, W) float32, at t: (B,) int64."""
