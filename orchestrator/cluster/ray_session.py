"""Which session of Ray answers at RAY_ADDRESS: a head that was started again has another one."""

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.cluster.http_client import ask

_TIMEOUT_S = 3.0


def ray_session() -> str | None:
    """Return the name of the session, or None where that cannot be seen: no answer, no http."""
    try:
        url = urlsplit(os.environ.get("RAY_ADDRESS", ""))
        asked = f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}/api/version"
        answer = ask(asked, headers=_token_headers(), timeout_s=_TIMEOUT_S)
        session = json.loads(answer.body) if answer.status == 200 else {}
    except (OSError, ValueError):
        return None
    return session.get("session_name") if isinstance(session, dict) else None


def _token_headers() -> dict[str, str]:
    token, path = os.environ.get("RAY_AUTH_TOKEN", ""), os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not token and path:
        try:
            token = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return {}
    return {"Authorization": f"Bearer {token}"} if token else {}
