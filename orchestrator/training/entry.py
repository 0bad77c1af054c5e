"""Where a worker begins, in a module that loads nothing.

The driver and Ray Train's controller only hand the loop on: with it they would load torch, seconds
of each start.
"""

import importlib
from typing import TYPE_CHECKING, Any

from orchestrator.attempts.address import AttemptAddress
from orchestrator.lifecycle.causes import raising_causes

if TYPE_CHECKING:
    from orchestrator.jobs.heartbeat import WorkerReport
    from orchestrator.training.board import SendReport


def train_in_group(config: dict[str, Any]) -> None:
    """Run the training loop on a worker of Ray Train's group.

    Args:
        config: As Ray Train wants it: "address", of the attempt, and "board", an actor.
    """
    import ray
    from ray import train

    def send(report: "WorkerReport") -> bool:
        return bool(ray.get(config["board"].report.remote(report), timeout=10))

    context = train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    run_training_loop(config["address"], send, rank=rank, world_size=world_size)


def run_training_loop(
    address: AttemptAddress, send: "SendReport", *, rank: int, world_size: int
) -> None:
    """Run `orchestrator.training.worker.train_loop`."""
    with raising_causes():
        module = importlib.import_module("orchestrator.training.worker")
        module.train_loop(address, send, rank=rank, world_size=world_size)
