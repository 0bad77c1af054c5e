"""Each error of ours goes through real actors, and a driver reads it as what it was."""

import os
import secrets
import subprocess
import sys

from tests.integration.commands import ROOT
from tests.support.errors import our_error_classes

TIMES_EACH = 4  # alone and as a cause, from the actor itself and through another one


def test_every_error_arrives_with_its_class_its_fields_and_its_reason() -> None:
    """A driver that could not read what its worker raised died of that, and told nobody why.

    In a process of its own: Ray reads its token once in a process, and the stack's is another one.
    """
    settings = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "120",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.across_ray"],
        env=settings,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line for line in done.stdout.splitlines() if line.startswith("FAILED")] == []
    assert f"{TIMES_EACH * len(our_error_classes())} sent" in done.stdout
