"""The one way in which this package asks a web server something itself: directly, once.

No proxy, no redirect and no second try: who is asked is on loopback, is Ray's head, or is an
address that a user gave, to which nothing may go that was meant for another.
"""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """What a server said.

    Attributes:
        status: 200, ...
        body: Empty where nobody wanted to read it.
    """

    status: int
    body: bytes = b""


def ask(  # by keyword, each a fact of its own
    url: str,
    *,
    timeout_s: float,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    reads_body: bool = True,
) -> Answer:
    """Send one request and return the answer, whatever its status.

    Args:
        url: http or https.
        timeout_s: How long to wait for a connection, and for each part of the answer.
        method: GET, POST, ...
        body: What is sent along.
        headers: Besides those that every request has.
        reads_body: Whether the answer's body is wanted.

    Raises:
        OSError: Nobody answers there, or not in HTTP.
        ValueError: The address cannot be used.
    """
    place = urlsplit(url)
    if place.scheme not in ("http", "https") or not place.hostname:
        raise ValueError("the address is no http or https")
    kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    connection = kind(place.hostname, place.port, timeout=timeout_s)
    path = (place.path or "/") + (f"?{place.query}" if place.query else "")
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return Answer(answer.status, answer.read() if reads_body else b"")
    except http.client.HTTPException as error:
        raise ConnectionError(f"no HTTP: {type(error).__name__}") from error
    finally:
        connection.close()
