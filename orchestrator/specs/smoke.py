"""The small jobs of `submit --smoke`: each looks whether a larger one would work.

A small job has the settings of the main one, on one worker, and ends after its smoke test. It
has the main job's priority, so it evicts nobody whom the main job would not evict.
"""

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.specs.asked import Submitted
from orchestrator.specs.envelope import Asked, Origin
from orchestrator.specs.group import Child, GroupJob
from orchestrator.specs.job import Job
from orchestrator.store.names import MAX_JOB_ID_LENGTH, MAX_NAME_LENGTH, SMOKE_ENDING, shortened

MAX_RUNTIME_S = 900.0


def smoke_job_id(job_id: str) -> str:
    """Return the id of a job's smoke test: the same each time."""
    return shortened(job_id, MAX_JOB_ID_LENGTH - len(SMOKE_ENDING)) + SMOKE_ENDING


def smoke_job(spec: Job) -> Job:
    """Return the small job that a job waits for: its settings on one worker, for one look."""
    runtime_s = min(spec.max_runtime_s or MAX_RUNTIME_S, MAX_RUNTIME_S)
    changes = {
        "name": shortened(spec.name, MAX_NAME_LENGTH - len(SMOKE_ENDING)) + SMOKE_ENDING,
        "max_runtime_s": runtime_s,
        "max_gpu_hours": None,
        "preemptible": False,
        "notify": None,
    }
    return spec.model_copy(update={**changes, **spec.smoke_changes()})


def behind_smoke_tests(whole: Submitted, job_id: str) -> tuple[Submitted, Mapping[str, Submitted]]:
    """Return a submission that waits for smoke tests, and those by their ids.

    A job waits for its own. Of a pipeline, each step that needs no other does: what the others
    draw from is not there yet. All runs of a sweep wait for that of the first.

    Args:
        whole: What was submitted; a group has its ids.
        job_id: Its id.
    """
    spec = whole.spec
    if not isinstance(spec, GroupJob):
        smoke_id = smoke_job_id(job_id)
        waiting = replace(whole, origin=Origin(waits_for_smoke=smoke_id))
        return waiting, {smoke_id: _smoke_test(spec, job_id, whole)}
    roots = [child for child in spec.children if not child.needs]
    first = {child.step: roots[0] if spec.kind == "sweep" else child for child in roots}
    smokes = {
        smoke_job_id(child.job_id): _smoke_test(child.spec, child.job_id, whole)
        for child in first.values()
    }
    children = tuple(_waiting(child, first.get(child.step)) for child in spec.children)
    return replace(whole, spec=spec.model_copy(update={"children": children})), smokes


def _smoke_test(spec: Job, job_id: str, whole: Submitted) -> Submitted:
    """Return a smoke test; of it counts as written nothing but what it is.

    Its settings are those of the job, which is compared itself.
    """
    small = smoke_job(spec)
    origin = Origin(smoke_of=job_id)
    if whole.asked is None:
        return Submitted(small, None, origin)
    written = {"": {"kind": small.kind, "name": small.name}}
    return Submitted(small, Asked(written, user=whole.asked.user), origin)


def _waiting(child: Child, tried: Child | None) -> Child:
    if tried is None:
        return child
    return child.model_copy(update={"waits_for_smoke": smoke_job_id(tried.job_id)})
