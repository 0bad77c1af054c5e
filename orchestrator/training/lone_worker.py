"""The worker of a training that has no other: a plain Ray actor, and its own board.

With nobody to form a group with, it needs neither Ray Train's controller nor its modules, which
cost seconds before the first step.
"""

from orchestrator.attempts.address import AttemptAddress
from orchestrator.attempts.attempt import Attempt
from orchestrator.cluster.ray_cluster import GB
from orchestrator.lifecycle.causes import unwrapped
from orchestrator.lifecycle.state import Placement
from orchestrator.training.board import AttemptBoard, BoardReader
from orchestrator.training.entry import run_training_loop

_PLACE_WITHIN_S = 60.0
_CALLS_AT_ONCE = 3  # the training, and what the driver asks


class LoneWorker(AttemptBoard):
    """Trains as a Ray actor of the driver; its reports lie with it."""

    def __init__(self) -> None:
        super().__init__(num_workers=1)

    def train(self, address: AttemptAddress) -> None:
        """Run the training loop to its end; other calls are answered meanwhile."""
        run_training_loop(address, self.report, rank=0, world_size=1)


def train_alone(attempt: Attempt, placement: Placement) -> None:
    """Start the one worker where it was placed, and wait for its end.

    Args:
        attempt: Whose progress the worker's reports become.
        placement: One worker's node, CPUs and GPUs.

    Raises:
        RayError: The worker died, or found no room.
        Exception: What the training loop raised.
    """
    import ray
    from ray.exceptions import ActorUnschedulableError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    (node,) = placement.workers_by_node
    actor_class = ray.remote(LoneWorker).options(
        num_cpus=placement.cpus_per_worker,
        num_gpus=placement.gpus_per_worker,
        memory=placement.memory_gb_per_worker * GB or None,
        max_concurrency=_CALLS_AT_ONCE,
        max_restarts=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    )
    worker = actor_class.remote()
    started = worker.__ray_ready__.remote()
    if not ray.wait([started], timeout=_PLACE_WITHIN_S)[0]:
        raise ActorUnschedulableError(
            f"the worker found no room on node {node} within {_PLACE_WITHIN_S:.0f} s"
        )
    ray.get(started)
    with BoardReader(attempt, worker):
        try:
            ray.get(worker.train.remote(attempt.address))
        except RayTaskError as error:
            raise unwrapped(error) from error
