"""What somebody sees who waits for a job."""

import pytest

from orchestrator.cli.progress import ProgressView
from orchestrator.client.status import job_status
from orchestrator.client.submit import submit_job
from tests.support.fakes import MemoryStore
from tests.support.world import train_job


def stop_waiting(store: MemoryStore, silent: bool) -> None:
    """Show a job once, then be told to stop."""
    with ProgressView(silent) as view:
        view.show(job_status(store, "a"))
        raise KeyboardInterrupt


@pytest.mark.parametrize("silent", [False, True])
def test_who_stops_waiting_is_told_that_the_job_goes_on(
    capsys: pytest.CaptureFixture[str], silent: bool
) -> None:
    """Elsewhere Ctrl-C ends what is watched; a program that reads JSON is told nothing."""
    store = MemoryStore()
    submit_job(store, train_job(), "a")
    with pytest.raises(KeyboardInterrupt):
        stop_waiting(store, silent)
    assert ("a goes on: ddpmctl wait a" in capsys.readouterr().err) is not silent
