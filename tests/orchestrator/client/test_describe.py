"""What `status` and `wait` say of a job."""

from dataclasses import replace

from orchestrator.cli.progress import pace_line
from orchestrator.client.describe import describe_job
from orchestrator.client.status import JobStatus
from orchestrator.lifecycle.phase import Phase
from orchestrator.lifecycle.state import JobState
from tests.support.records import NOW

TRAINING = JobStatus(
    job_id="t",
    kind="train",
    name="t",
    state=JobState.RUNNING,
    submitted_at=NOW,
    changed_at=NOW,
    confirmed_at=NOW,
    phase=Phase.RUNNING,
    done=20,
    total=100,
    unit="steps",
    rate_per_s=10.0,
    details={"data_wait_share": 0.234},
)


def test_a_training_that_waits_for_its_data_says_so_beside_its_pace() -> None:
    """Else nobody sees that faster hardware would not help."""
    assert "20/100 steps, 10.0/s, 23% of the time waiting for data" in describe_job(TRAINING)
    line = "20/100 steps, 10.0/s, 8s left, 23% of the time waiting for data"
    assert pace_line(TRAINING) == line


def test_data_that_come_in_time_are_not_told_of() -> None:
    """What is as it should be needs no words; nor has a job that stands still a pace."""
    for status in (
        replace(TRAINING, details={"data_wait_share": 0.004}),
        replace(TRAINING, rate_per_s=0.0),
        replace(TRAINING, details={}),
    ):
        assert "waiting for data" not in describe_job(status) + pace_line(status)
