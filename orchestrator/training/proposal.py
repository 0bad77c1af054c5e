"""What a training's first attempt proposes: whatever changes bits, as this machine would do it."""

from ddpm.bits import BITS_VERSION
from ddpm.compute import ComputeDecision, Workload, decide_compute
from orchestrator.artifacts.checkpoints.own_code import network_decision
from orchestrator.artifacts.datasets.refs import DatasetRef
from orchestrator.attempts.attempt import Attempt
from orchestrator.attempts.compute import kernel_folder, threads_of
from orchestrator.cluster.code_version import code_version
from orchestrator.lifecycle.state import Placement
from orchestrator.specs.train import TrainJob
from orchestrator.training.decisions import MICROBATCH
from orchestrator.training.images import shuffle_decision

_WORTH_COMPILING_STEPS = 5000
_RECOMPUTED = "activation_checkpointing computes the stages of the network one by one"


def placement_of(attempt: Attempt) -> Placement:
    """Return where an attempt's workers are."""
    placement = attempt.record.placement
    assert placement is not None  # noqa: S101 - a started record has one
    return placement


def proposal(
    attempt: Attempt, spec: TrainJob, dataset: DatasetRef, size: int, world_size: int
) -> dict[str, object]:
    """Return what holds for all attempts, if no earlier one has decided.

    Args:
        attempt: Of the training.
        spec: What was asked.
        dataset: The images.
        size: Images of a worker that go through the network at a time.
        world_size: Workers.
    """
    compute = _compute(spec, placement_of(attempt), size, world_size)
    labelled = bool(spec.model.num_classes)
    return {
        "compute": compute.to_json(),
        "num_workers": world_size,
        MICROBATCH: size,
        "bits_version": BITS_VERSION,
        "code_sha256": code_version(),
        **shuffle_decision(attempt.store, spec.dataset, dataset),
        **({"class_names": list(dataset.class_names)} if labelled else {}),
        **network_decision(spec.model),
    }


def _compute(spec: TrainJob, placement: Placement, size: int, world_size: int) -> ComputeDecision:
    training, is_unet = spec.training, spec.model.family == "ddpm"
    work = Workload(
        network=spec.model,
        diffusion=spec.diffusion,
        images_per_pass=size,
        num_passes=training.global_batch_size // world_size // size,
        is_recomputed=training.activation_checkpointing,
        compile_hindrance=_compile_hindrance(spec),
    )
    return decide_compute(
        work,
        precision=training.precision if is_unet else "float32",  # the others are small
        compile_request=training.compile,
        num_threads=threads_of(placement.cpus_per_worker),
        worth_compiling=training.num_steps >= _WORTH_COMPILING_STEPS,
        kernel_folder=kernel_folder(),
        device_kind="cuda" if placement.gpus_per_worker else "cpu",
    )


def _compile_hindrance(spec: TrainJob) -> str:
    """Return why the network is not compiled; "" if it may be."""
    if spec.model.family != "ddpm":
        return f"the networks of a {spec.model.family} are small"
    return _RECOMPUTED if spec.training.activation_checkpointing else ""
