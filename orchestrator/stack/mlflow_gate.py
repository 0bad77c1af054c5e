"""An MLflow server that asks for a token: `mlflow server --app-name ddpmctl`.

Whoever can reach an open MLflow server can read and delete runs, and through it the artifacts in
the store. Clients send the token as `MLFLOW_TRACKING_TOKEN`; a browser opens the page once with
`?token=...`, which a cookie then remembers, or gives it as the password.
"""

import base64
import binascii
import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

TOKEN_VARIABLE = "DDPMCTL_MLFLOW_TOKEN"  # noqa: S105  (a name, not a token)
REMEMBERED_S = 90 * 24 * 3600

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


def create_app() -> Application:
    """Return MLflow's own application behind the gate; called by the MLflow server."""
    from mlflow.server.fastapi_app import app

    return TokenGate(app, os.environ[TOKEN_VARIABLE])


class TokenGate:
    """An ASGI application that lets those through who hold the token."""

    def __init__(self, application: Application, token: str) -> None:
        self._application = application
        self._token = token

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] == "lifespan" or self._is_allowed(scope):
            await self._application(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif self._is_token(dict(_query(scope)).get("token", "")):
            # Lax: a link or bookmark from elsewhere opens the page; forms of others do not get in.
            remember = (
                f"{_cookie_name(scope)}={self._token}; Path=/; HttpOnly; SameSite=Lax; "
                f"Max-Age={REMEMBERED_S}"
            )
            headers = [(b"location", _without_token(scope)), (b"set-cookie", remember.encode())]
            await _send(send, 303, headers)
        else:
            challenge = (b"www-authenticate", b'Basic realm="MLflow: any name, the token"')
            await _send(send, 401, [challenge])

    def _is_allowed(self, scope: Message) -> bool:
        headers = _headers(scope)
        kind, _, value = headers.get(b"authorization", "").partition(" ")
        offered = {"bearer": value, "basic": _password(value)}.get(kind.lower(), "")
        cookie = _cookie(headers.get(b"cookie", ""), _cookie_name(scope))
        return self._is_token(offered) or self._is_token(cookie)

    def _is_token(self, offered: str) -> bool:
        return hmac.compare_digest(offered.encode(), self._token.encode())


def _headers(scope: Message) -> dict[bytes, str]:
    return {name: value.decode("latin-1") for name, value in scope["headers"]}


def _query(scope: Message) -> list[tuple[str, str]]:
    return parse_qsl(scope.get("query_string", b"").decode("latin-1"))


def _without_token(scope: Message) -> bytes:
    rest = urlencode([pair for pair in _query(scope) if pair[0] != "token"])
    # The path begins with one slash, so that it cannot name another host.
    path = "/" + scope.get("raw_path", b"/").decode("latin-1").lstrip("/\\")
    return f"{path}?{rest}".rstrip("?").encode("latin-1")


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _cookie_name(scope: Message) -> str:
    # Browsers send the cookies of a host to all of its ports: two stacks must not share a name.
    return f"ddpmctl-mlflow-{(scope.get('server') or ('', 0))[1]}"


def _cookie(header: str, name: str) -> str:
    try:
        cookie = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return cookie.value if cookie else ""


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    body = b"" if status == 303 else b"This MLflow server asks for a token; see `ddpmctl up`.\n"
    plain = (b"content-type", b"text/plain; charset=utf-8")
    await send({"type": "http.response.start", "status": status, "headers": [*headers, plain]})
    await send({"type": "http.response.body", "body": body})
