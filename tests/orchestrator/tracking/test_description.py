"""A run in MLflow says what it is; its params are those that matter to the images."""

from datetime import UTC, datetime

from orchestrator.lifecycle.state import JobRecord, JobState
from orchestrator.specs.envelope import Asked, StoredSpec
from orchestrator.specs.sections import NotifySpec
from orchestrator.store.keys import JobPaths
from orchestrator.tracking.description import description
from orchestrator.tracking.groups import own_settings
from orchestrator.tracking.lines import ParamsLine, decode_lines, params_of
from orchestrator.tracking.writer import MetricWriter
from tests.support.fakes import MemoryStore
from tests.support.records import record_of
from tests.support.world import train_job

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def record(**more: str) -> JobRecord:
    """Return the record of a running job."""
    return record_of("digits-1", at=NOW, name="digits", state=JobState.RUNNING, **more)


def test_a_description_names_data_model_owner_and_what_to_type() -> None:
    """Who finds a run in a year's time goes on from there; no text of a user breaks it."""
    spec = {"dataset": {"source": "my `set`\n# big"}, "model": {"channels": 64}}
    told = description(spec, record(owner="ada", parent="sweep-1", step="002"))
    assert "- data: `my set # big`" in told
    assert "- model: `64 channels`" in told
    assert "- part of: `sweep-1, as 002`" in told
    assert "- submitted by: `ada`" in told
    assert "ddpmctl resubmit digits-1" in told
    assert "- model: `job digits`" in description({"model": {"job": "digits"}}, record())


def test_params_leave_retries_out_and_hold_what_a_sweep_varies() -> None:
    """31 of 74 params were `retry.*`, and an address to notify is nobody's business there."""
    matrix = {"training.seed": [0, 1]}
    spec = {
        "kind": "sweep",
        "retry": {"worker_lost": {}},
        "notify": {"url": "https://x/secret"},
        "children": [],
    }
    stored = StoredSpec(spec=spec, asked=Asked({"": {"matrix": matrix}}))
    assert params_of(own_settings(stored)) == {"kind": "sweep", "matrix.training.seed": "[0, 1]"}
    assert params_of(own_settings(StoredSpec(spec=spec))) == {"kind": "sweep"}


def test_what_a_driver_logs_of_its_job_is_what_the_orchestrator_sends() -> None:
    """Both send the settings, so leaving retries out in one of them left them in the run."""
    job = train_job("a", notify=NotifySpec(url_env="HOOK"))
    store = MemoryStore()
    with MetricWriter(store, JobPaths("a-1").attempt(1)) as metrics:
        metrics.log_params(job.model_dump(mode="json"))
    (key,) = [key for key in store.objects if key.endswith(".jsonl")]
    (line,), _ = decode_lines(store.get(key).body)
    assert isinstance(line, ParamsLine)
    assert line.values["training.num_steps"] == str(job.training.num_steps)
    assert not [name for name in line.values if name.startswith(("retry", "notify"))]
