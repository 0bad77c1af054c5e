"""An MLflow that is down holds up the jobs that need it, and nothing else."""

from datetime import timedelta

from orchestrator.errors import TrackingError
from orchestrator.models import ASK_MLFLOW_AGAIN_AFTER, ModelFinder, ModelResolution
from orchestrator.spec import ModelRef
from orchestrator.storage import ObjectStore
from tests.fakes import MemoryStore

REGISTERED, TRAINED = ModelRef(registered="digits@champion"), ModelRef(job="digits")


def test_an_mlflow_that_is_down_is_not_asked_for_each_job_in_each_loop() -> None:
    """Each question may take seconds, and the loop has a lease to renew."""
    asked = []

    def find(store: ObjectStore, ref: ModelRef) -> ModelResolution:
        asked.append(ref)
        if ref.registered is not None and len(asked) < 3:
            raise TrackingError("no answer")
        return ModelResolution({"step": 1})

    store = MemoryStore()
    finder, now = ModelFinder(store, find), store.now()
    for _ in range(5):
        assert "MLflow" in (finder.find(REGISTERED, now).waits_for or "")
    assert finder.find(TRAINED, now).waits_for is None
    assert asked == [REGISTERED, TRAINED]
    later = now + ASK_MLFLOW_AGAIN_AFTER + timedelta(seconds=1)
    assert finder.find(REGISTERED, later).model == {"step": 1}
