"""How much of a job is committed, as the store shows it."""

from collections.abc import Callable, Mapping

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.datasets.cutting import PLAN, PREPARATION_NAME
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.jobs.units import plan_shards
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import JOB_KINDS, Output
from orchestrator.specs.sample import SampleJob
from orchestrator.store.keys import JobPaths, PreparationPaths
from orchestrator.store.objects import ObjectStore


def committed_units(store: ObjectStore, job: JobPaths, spec: Job) -> int:
    """Return the units (steps, images) that a job has committed; 0 where its output has none."""
    output = JOB_KINDS[spec.kind].output
    count = _COUNTS.get(output) if output is not None else None
    return count(store, job, spec) if count is not None else 0


def _steps(store: ObjectStore, job: JobPaths, _: Job) -> int:
    return max(CheckpointStore(store, job).steps(), default=0)


def _images(store: ObjectStore, job: JobPaths, spec: Job) -> int:
    if not isinstance(spec, SampleJob):
        return 0
    plan = plan_shards(spec.num_samples, spec.shard_size)
    return sum(plan[index].num_images for index in SampleShards(store, job).indices())


def _prepared_images(store: ObjectStore, job: JobPaths, _: Job) -> int:
    """Count images in committed units, damaged ones among them; 0 once the preparation is done."""
    named = PREPARATION_NAME.value(store, job.preparation)
    if named is None:
        return 0
    paths = PreparationPaths(named.preparation)
    plan = PLAN.value(store, paths.plan)
    if plan is None:
        return 0
    num_units = sum(1 for _ in store.list_objects(paths.units))
    return min(num_units * plan.images_per_unit, plan.num_images)


_COUNTS: Mapping[Output, Callable[[ObjectStore, JobPaths, Job], int]] = {
    Output.CHECKPOINTS: _steps,
    Output.SAMPLES: _images,
    Output.DATASET: _prepared_images,
}
