"""Where a worker begins, in a module that loads nothing.

The driver and Ray Train's controller only hand the loop on: with it they would load torch, seconds
of each start.
"""

import importlib
from typing import Any


def train_in_group(config: dict[str, Any]) -> None:
    """Run the training loop on a worker of Ray Train's group."""
    from ray import train

    context = train.get_context()
    run_training_loop(config, rank=context.get_world_rank(), world_size=context.get_world_size())


def run_training_loop(config: dict[str, Any], *, rank: int, world_size: int) -> None:
    """Run `orchestrator.training_worker.train_loop`."""
    module = importlib.import_module("orchestrator.training_worker")
    module.train_loop(config, rank=rank, world_size=world_size)
