"""Nobody gets past the gate of the MLflow server without its token."""

import asyncio
import base64
from typing import Any

import pytest

from orchestrator.stack.mlflow_gate import Message, TokenGate

TOKEN = "a-token"


async def _inside(scope: Message, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def ask(
    headers: dict[str, str] | None = None, query: str = "", kind: str = "http", path: str = "/x"
) -> list[Message]:
    """Send one request through the gate and return what comes back."""
    answers: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        answers.append(message)

    scope = {
        "type": kind,
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        "query_string": query.encode(),
        "raw_path": path.encode(),
        "server": ("127.0.0.1", 5000),
    }
    asyncio.run(TokenGate(_inside, TOKEN)(scope, receive, send))
    return answers


def basic(password: str) -> str:
    """The header of a user and a password."""
    return f"Basic {base64.b64encode(f'me:{password}'.encode()).decode()}"


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {TOKEN}"},
        {"authorization": basic(TOKEN)},
        {"cookie": f"other=1; ddpmctl-mlflow-5000={TOKEN}"},
    ],
)
def test_token_opens(headers: dict[str, str]) -> None:
    """Clients send a header, browsers a password or the cookie."""
    assert ask(headers)[0]["status"] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": "Bearer a-toke"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Basic ***"},
        {"authorization": basic("")},
        {"authorization": TOKEN},
        {"cookie": f"ddpmctl-mlflow-5001={TOKEN}"},
        {"cookie": "\x01=;;;"},
    ],
)
def test_anything_else_is_refused(headers: dict[str, str]) -> None:
    """An empty or malformed credential must not fall through."""
    answers = ask(headers)
    assert answers[0]["status"] == 401
    assert b"inside" not in answers[1]["body"]


def test_link_with_the_token_is_remembered_and_cleaned() -> None:
    """The token should not stay in the address bar, where it is copied along with the page."""
    start = ask(query=f"token={TOKEN}&run=3")[0]
    headers = dict(start["headers"])
    assert start["status"] == 303
    assert headers[b"location"] == b"/x?run=3"
    assert headers[b"set-cookie"].startswith(b"ddpmctl-mlflow-5000=a-token;")
    # Strict, or without an age, every bookmark and link from elsewhere was refused.
    assert b"; HttpOnly; SameSite=Lax; Max-Age=" in headers[b"set-cookie"]


def test_link_leads_to_no_other_host() -> None:
    """`//evil.example` as a path would be a host in the redirect."""
    start = ask(query=f"token={TOKEN}", path="//evil.example/")[0]
    assert dict(start["headers"])[b"location"] == b"/evil.example/"


def test_websockets_are_refused_without_a_token() -> None:
    """They carry the same data by another door."""
    assert ask(kind="websocket")[0]["type"] == "websocket.close"
