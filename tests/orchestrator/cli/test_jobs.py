"""What the verbs that look at jobs say."""

from typing import Any, NoReturn

import pytest

from orchestrator.cli import jobs
from orchestrator.cli.output import Output
from tests.support.fakes import MemoryStore


def test_whoever_stops_waiting_is_told_that_the_job_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends other tools' work, so it was not clear what it had ended here."""

    def interrupted(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "follow", interrupted)
    with pytest.raises(KeyboardInterrupt):
        jobs.watch(Output(as_json=False), MemoryStore(), "digits")
    assert "digits goes on; `ddpmctl cancel digits` ends it" in capsys.readouterr().err
