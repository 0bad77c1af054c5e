"""Which trained models a job came from: its own, what that one started from, and so on."""

from dataclasses import dataclass

from orchestrator.errors import JobNotFoundError
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.store.objects import ObjectStore

MAX_ANCESTORS = 50


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """A checkpoint that something began with.

    Attributes:
        job_id: The training that made it.
        step: Its training steps.
        weights: Which of its files: `all` means that the training went on from it.
    """

    job_id: str
    step: int
    weights: str = "ema"

    def __str__(self) -> str:
        return f"{self.job_id}/{self.step}"


def ancestors(store: ObjectStore, model: ResolvedModel | None) -> tuple[Ancestor, ...]:
    """Return the line of descent of a job, its own model first; () for none.

    It ends at the first training that began with drawn weights, lies in another store, or is gone.

    Args:
        store: Where the jobs are.
        model: The checkpoint of the job's record; None where it has none.

    Raises:
        BadInputError: A newer version wrote what is read.
    """
    records = RecordStore(store)
    line: list[Ancestor] = []
    while model is not None and len(line) < MAX_ANCESTORS:
        line.append(Ancestor(job_id=model.job_id, step=model.step, weights=model.weights))
        if model.store_uri:
            break
        try:
            model = records.read(model.job_id).record.model
        except JobNotFoundError:
            break
    return tuple(line)
