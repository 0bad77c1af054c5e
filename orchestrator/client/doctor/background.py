"""What waits in the background, and why."""

from orchestrator.client.doctor.findings import Finding
from orchestrator.errors import OrchestratorError
from orchestrator.jobs.troubles import read_troubles
from orchestrator.store.objects import ObjectStore

_SHOWN = 3


def diagnose_background(store: ObjectStore) -> list[Finding]:
    """Return what keeps jobs waiting beside the queue; nothing where the store cannot be read."""
    try:
        troubles = read_troubles(store)
    except OrchestratorError:
        return []  # the probes of the store say more
    if not troubles:
        return [Finding("jobs", "background", True, "nothing waits in the background")]
    message = "; ".join(f"{one.job_id} ({one.what}): {one.why}" for one in troubles[:_SHOWN])
    more = f", and {len(troubles) - _SHOWN} more" if len(troubles) > _SHOWN else ""
    remedy = "`ddpmctl status JOB` says what each job waits for"
    return [Finding("jobs", "background", False, message + more, remedy)]
