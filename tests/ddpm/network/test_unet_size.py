"""The parameter count that a plan shows is that of the network."""

import pytest

from ddpm.config import UNetConfig
from ddpm.network.unet import UNet
from ddpm.network.unet_size import count_parameters


def test_the_cifar10_network_has_the_published_size() -> None:
    """35.7 M parameters, Ho et al. 2020, appendix B."""
    assert count_parameters(UNetConfig(), (3, 32, 32)) == 35_746_307


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (UNetConfig(channels=8, channel_multipliers=(1, 2, 2), num_res_blocks=1), (1, 8, 8)),
        (UNetConfig(channels=8, channel_multipliers=(1,), attention_resolutions=(8,)), (4, 8, 8)),
        (
            UNetConfig(channels=16, channel_multipliers=(2, 1, 3), attention_resolutions=(4, 16)),
            (3, 16, 32),
        ),
    ],
)
def test_the_count_is_that_of_the_network(config: UNetConfig, shape: tuple[int, int, int]) -> None:
    """A dry run must not promise another size than the job will have."""
    model = UNet(config, shape)
    assert count_parameters(config, shape) == sum(p.numel() for p in model.parameters())
