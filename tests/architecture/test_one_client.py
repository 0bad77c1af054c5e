"""Who asks a web server something, and with what."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_CLIENTS = re.compile(
    r"^\s*(?:import|from) (http\.client|requests|urllib3|httpx|urllib\.request)\b"
)
# By the client that Ray and MLflow use, so that it meets what they would meet.
_ALLOWED = {
    "orchestrator/cluster/http_client.py": {"http.client"},
    "orchestrator/client/doctor/servers.py": {"requests"},
    "orchestrator/cluster/ray_jobs.py": {"requests"},  # the error of Ray's client alone
}


def test_one_module_speaks_http() -> None:
    """Time-outs, redirects and proxies are decided once."""
    found: dict[str, set[str]] = {}
    for package in ("ddpm", "orchestrator"):
        for path in (ROOT / package).rglob("*.py"):
            for line in path.read_text("utf-8").splitlines():
                if (match := _CLIENTS.match(line)) is not None:
                    found.setdefault(str(path.relative_to(ROOT)), set()).add(match[1])
    assert found == _ALLOWED
