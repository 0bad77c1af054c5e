"""Keeps credentials out of what is written down."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

_NAMES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "RAY_AUTH_TOKEN",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
)
_SHORTEST = 6


def secret_values(environ: Mapping[str, str] = os.environ) -> tuple[bytes, ...]:
    """Return the values that must not be shown, the longest first."""
    values = [environ.get(name, "") for name in _NAMES]
    token_path = environ.get("RAY_AUTH_TOKEN_PATH")
    if token_path and Path(token_path).is_file():
        values.append(Path(token_path).read_text(encoding="utf-8", errors="ignore").strip())
    # A very short value would redact ordinary words and is no secret.
    found = {value.encode() for value in values if len(value) >= _SHORTEST}
    return tuple(sorted(found, key=len, reverse=True))


def redacted(text: bytes, secrets: Collection[bytes]) -> bytes:
    """Return a text with each secret replaced by `***`."""
    for secret in secrets:
        text = text.replace(secret, b"***")
    return text
