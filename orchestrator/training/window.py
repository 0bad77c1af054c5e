"""The steps between two metric lines, as one line."""

from statistics import fmean

from ddpm.training.loop import StepMetrics


class Window:
    """Takes steps in, and gives the values of a line over them.

    Args:
        batch_size: Images of a step.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._steps: list[StepMetrics] = []
        self._seconds = 0.0
        self.steps_per_s = 0.0

    def add(self, metrics: StepMetrics) -> None:
        """Take a step in."""
        self._steps.append(metrics)
        self._seconds += self._batch_size / metrics.images_per_s
        self.steps_per_s = len(self._steps) / self._seconds

    def pace(self) -> dict[str, float]:
        """Return what a heartbeat tells of the steps since the last line, of which there are some.

        `rate_per_s` is in steps, `data_wait_share` what of their time went by waiting for images.
        """
        share = min(1.0, self._data_wait_s() / self._seconds)
        return {"rate_per_s": self.steps_per_s, "data_wait_share": share}

    def take(self) -> dict[str, float]:
        """Return the values of a line, and begin anew.

        The losses are means over the window, since that of one batch says little; the gradient's
        norm and the learning rate are those of the last step.
        """
        last = self._steps[-1]
        values = {
            "loss": fmean(step.loss for step in self._steps),
            "grad_norm": last.grad_norm,
            "learning_rate": last.learning_rate,
            "images_per_s": self.steps_per_s * self._batch_size,
            "data_wait_s": self._data_wait_s(),
        }
        by_quarter = zip(*(step.loss_by_quarter for step in self._steps), strict=True)
        for quarter, losses in enumerate(by_quarter, start=1):
            seen = [loss for loss in losses if loss is not None]
            if seen:
                values[f"loss_quarter_{quarter}"] = fmean(seen)
        self._steps.clear()
        self._seconds = 0.0
        return values

    def _data_wait_s(self) -> float:
        return sum(step.data_wait_s for step in self._steps)
