"""The weights of the losses: one error of x_0 costs the same, whatever the network predicts."""

from typing import Any

import numpy as np
import pytest
import torch

from ddpm.config import ConfigError, DiffusionConfig
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.schedule import build_schedule
from ddpm.process.weights import loss_weights

PREDICTIONS = ["epsilon", "x_start", "mean", "v"]
CUMPROD = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))
SNR = CUMPROD / (1.0 - CUMPROD)


def _table(**settings: Any) -> np.ndarray:
    config = DiffusionConfig(**settings)
    return loss_weights(build_schedule(config), config).numpy()


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_is_its_papers_table(gamma: float) -> None:
    """Hang et al. 2023, section 3.4. For v a 1 left out of the divisor went unseen for a year."""
    capped = np.minimum(SNR, gamma)
    wanted = {"x_start": capped, "epsilon": capped / SNR, "v": capped / (SNR + 1.0)}
    for prediction, table in wanted.items():
        found = _table(loss="min_snr", min_snr_gamma=gamma, prediction=prediction)
        np.testing.assert_allclose(found, table, rtol=1e-9)


@pytest.mark.parametrize("loss", ["weighted", "min_snr"])
@pytest.mark.parametrize("settings", [{}, {"betas": "cosine"}, {"variance": "fixed_small"}])
def test_an_error_of_x_0_costs_the_same_in_any_prediction(
    loss: str, settings: dict[str, Any]
) -> None:
    """The prediction is a choice of language; a weighted loss must not change with it."""
    t = torch.tensor([1, 5, 100, 500, 900, 995])
    generator = torch.Generator().manual_seed(0)
    x_start, noise, off = (torch.randn(6, 1, 4, 4, generator=generator) for _ in range(3))
    losses = []
    for prediction in PREDICTIONS:
        config = DiffusionConfig(loss=loss, prediction=prediction, **settings)  # type: ignore[arg-type]
        diffusion = GaussianDiffusion(config).double()
        x_t = diffusion.q_sample(x_start.double(), t, noise.double())
        wrong = x_start.double() + 0.1 * off.double()
        outputs = {
            "epsilon": diffusion.predict_eps_from_xstart(x_t, t, wrong),
            "x_start": wrong,
            "mean": diffusion.predict_mean_from_xstart(x_t, t, wrong),
        }
        eps = outputs["epsilon"]
        outputs["v"] = diffusion.predict_v(wrong, t, eps)
        loss_of = diffusion.training_loss(
            outputs[prediction], x_start.double(), x_t, t, noise.double()
        )
        losses.append(loss_of.numpy())
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=2e-2)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_simple_has_no_weights(prediction: str) -> None:
    """L_simple is the plain error of whatever is predicted."""
    assert (_table(loss="simple", prediction=prediction) == 1.0).all()


@pytest.mark.parametrize("prediction", ["x_start", "v", "mean"])
@pytest.mark.parametrize("loss", ["weighted", "min_snr"])
def test_weights_are_finite_where_nothing_of_the_image_is_left(prediction: str, loss: str) -> None:
    """With a rescaled schedule the signal-to-noise ratio ends at 0."""
    table = _table(loss=loss, prediction=prediction, rescale_zero_snr=True)
    assert np.isfinite(table).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rescale_zero_snr": True}, "false with prediction epsilon"),
        ({"min_snr_gamma": 3.0}, "left out with loss simple"),
        ({"vlb_weight": 0.1}, "left out with variance fixed_large"),
        ({"variance": "learned", "loss": "weighted"}, "simple or min_snr"),
    ],
)
def test_settings_that_nothing_would_read_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    """A number that changes nothing is a mistake that shows weeks later."""
    with pytest.raises(ConfigError, match=message):
        DiffusionConfig(**settings)
