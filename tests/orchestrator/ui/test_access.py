"""Who sees the page, and who changes a job with it."""

from typing import Any

import pytest

from orchestrator.ui.access import Access, is_loopback
from orchestrator.ui.app import Actions
from tests.support.ui import ACCESS, PORT, app_of, ask, busy_world
from tests.support.world import World


@pytest.fixture(scope="module")
def world() -> World:
    """Jobs of every kind."""
    return busy_world()


@pytest.fixture
def done() -> list[str]:
    """What was asked for."""
    return []


@pytest.fixture
def app(world: World, done: list[str]) -> Any:
    """A page with actions."""
    return app_of(
        world, Actions(lambda j: done.append(f"cancel {j}"), lambda j: done.append(f"retry {j}"))
    )


def test_the_first_link_leaves_a_cookie_and_no_token_in_the_address(app: Any) -> None:
    """An address is kept in histories and sent to others."""
    answer = ask(app, "/jobs/works-1?token=the-token", cookie=None)
    assert answer.status == 307
    assert answer.headers["location"] == "/jobs/works-1"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "the-token" not in cookie
    assert str(PORT) in cookie.partition("=")[0]


@pytest.mark.parametrize("path", ["/", "/jobs/works-1", "/ui.js", "/jobs/set-1/set/0.png"])
@pytest.mark.parametrize("cookie", [None, "", "the-token", "0" * 64])
def test_nobody_else_sees_anything(app: Any, path: str, cookie: str | None) -> None:
    """Other users of the machine reach the port, too."""
    answer = ask(app, path, cookie=cookie)
    assert answer.status == 403
    assert len(answer.body) < 100
    assert ask(app, f"{path}?token=wrong", cookie=cookie).status == 403


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1:8421", True),
        ("localhost:99", True),
        ("[::1]:80", True),
        ("127.0.0.1", True),
        ("evil.example:8421", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[::1", False),
        ("10.0.0.1", False),
    ],
)
def test_names_that_others_could_take_are_refused(app: Any, host: str, is_ours: bool) -> None:
    """A page of somebody else's whose name was made to lead here would read ours."""
    assert is_loopback(host) is is_ours
    assert (ask(app, "/ui.css", host=host).status == 200) is is_ours


def test_every_answer_forbids_what_the_page_does_not_need(app: Any) -> None:
    """No frame around it, no script from elsewhere, no address told to others, no copy kept."""
    for answer in (ask(app, "/"), ask(app, "/", cookie=None), ask(app, "/jobs/nothing")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_without_actions_nothing_changes(world: World) -> None:
    """Reading is what a page is for; changing is asked for."""
    app = app_of(world)
    body = f"csrf={ACCESS.csrf('works-1')}".encode()
    assert ask(app, "/jobs/works-1/cancel", method="POST", body=body).status in (404, 405)
    assert 'method="post"' not in ask(app, "/jobs/works-1").text


def test_a_form_of_the_page_changes_a_job_and_leads_back(app: Any, done: list[str]) -> None:
    """The mark is that of the job's own page."""
    assert ACCESS.csrf("works-1") in ask(app, "/jobs/works-1").text
    body = f"csrf={ACCESS.csrf('works-1')}".encode()
    answer = ask(app, "/jobs/works-1/cancel", method="POST", body=body)
    assert (answer.status, answer.headers["location"]) == (303, "/jobs/works-1")
    assert done == ["cancel works-1"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"csrf=" + b"0" * 64, {}),
        (f"csrf={ACCESS.csrf('waits-1')}".encode(), {}),
        (b"csrf=" + b"a" * 10_000, {}),
        (f"csrf={ACCESS.csrf('works-1')}".encode(), {"origin": "http://evil.example"}),
        (f"csrf={ACCESS.csrf('works-1')}".encode(), {"origin": "null"}),
        (f"csrf={ACCESS.csrf('works-1')}".encode(), {"origin": "http://127.0.0.1:9999"}),
    ],
)
def test_a_form_from_elsewhere_changes_nothing(
    app: Any, done: list[str], body: bytes, headers: dict[str, str]
) -> None:
    """The browser sends the cookie with every form, whoever wrote it."""
    assert ask(app, "/jobs/works-1/cancel", method="POST", body=body, **headers).status == 403
    assert done == []


def test_a_get_changes_nothing(app: Any, done: list[str]) -> None:
    """A picture's address in a mail would be enough."""
    assert ask(app, "/jobs/works-1/cancel").status in (404, 405)
    assert done == []


def test_tokens_are_long_and_differ() -> None:
    """Each start has its own."""
    one, two = Access.fresh(1), Access.fresh(1)
    assert len(one.token) >= 32
    assert one.token != two.token
    assert one.cookie != two.cookie
