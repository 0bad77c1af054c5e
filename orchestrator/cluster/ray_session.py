"""Which session of Ray answers at RAY_ADDRESS: a head that was started again has another one."""

import http.client
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

_TIMEOUT_S = 3.0


def ray_session() -> str | None:
    """Return the name of the session, or None where that cannot be seen: no answer, no http."""
    try:
        url = urlsplit(os.environ.get("RAY_ADDRESS", ""))
        if url.scheme not in ("http", "https") or not url.hostname:
            return None
        port = url.port
    except ValueError:
        return None
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", f"{url.path.rstrip('/')}/api/version", headers=_token_headers())
        answer = connection.getresponse()
        found = json.loads(answer.read()) if answer.status == 200 else {}
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return found.get("session_name") if isinstance(found, dict) else None


def _token_headers() -> dict[str, str]:
    token, path = os.environ.get("RAY_AUTH_TOKEN", ""), os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not token and path:
        try:
            token = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return {}
    return {"Authorization": f"Bearer {token}"} if token else {}
