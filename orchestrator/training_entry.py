"""Where Ray Train finds the training loop, in a module that loads nothing.

Ray Train's controller and the driver only hand the loop on: with it they would load torch, seconds
of each start, one process after the other.
"""

import importlib
from typing import Any


def train_loop(config: dict[str, Any]) -> None:
    """Run `orchestrator.training_worker.train_loop` on a worker."""
    importlib.import_module("orchestrator.training_worker").train_loop(config)
