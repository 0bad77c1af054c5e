"""What the page shows, that nothing of it is anybody's markup, and that the store is enough."""

from typing import Any

import numpy as np
import pytest

from orchestrator.artifacts.images import decode_png
from orchestrator.errors import StoreUnavailableError
from orchestrator.ui.elements import Markup, el, joined
from orchestrator.ui.set_page import PER_PAGE
from tests.support.page_reader import Reader
from tests.support.ui import EVIL, PIXELS, app_of, ask, busy_world
from tests.support.world import World


@pytest.fixture(scope="module")
def world() -> World:
    """Jobs of every kind."""
    return busy_world()


@pytest.fixture(scope="module")
def app(world: World) -> Any:
    """Their page, without actions."""
    return app_of(world)


@pytest.mark.parametrize("path", ["/", "/jobs/works-1", "/jobs/fails-1", "/jobs/set-1/set"])
def test_pages_are_whole_load_from_here_alone_and_read_without_eyes(app: Any, path: str) -> None:
    """No script from elsewhere, no picture without words, nothing left open."""
    answer = ask(app, path)
    assert answer.status == 200
    reader = Reader(answer.text)
    assert reader.open == []
    sources = [a.get("src") for a in reader.all("img") + reader.all("script")]
    sources += [a.get("href") for a in reader.all("link")]
    assert all(source and source.startswith(("/", "data:,")) for source in sources)
    assert not any(source.startswith("//") for source in sources if source)
    assert all(image.get("alt") for image in reader.all("img"))
    assert len(reader.all("h1")) == 1
    ids = [a["id"] for _, a in reader.tags if a.get("id")]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", ["/", "/jobs/fails-1"])
def test_no_text_of_a_user_becomes_markup(app: Any, path: str) -> None:
    """Messages hold what a program or another server wrote."""
    text = ask(app, path).text
    assert "alert(1)" in text
    assert EVIL not in text
    assert [a for a in Reader(text).all("script") if a.get("src") != "/ui.js"] == []


def test_the_first_page_tells_the_queue_with_places_and_reasons_and_the_nodes(app: Any) -> None:
    """The question is who goes next, and why not this one."""
    text = ask(app, "/").text
    for told in (
        "works-1",
        "waits-1",
        "never: ",
        "the orchestrator acts",
        "CPUs held",
    ):
        assert told in text, told
    only = ask(app, "/?name=wait&part=now").text
    assert "waits-1" in only
    assert "works-1" not in only.partition("Nodes")[0]
    assert "<html" not in only


def test_a_jobs_page_tells_its_life_and_shows_its_curves_and_pictures(app: Any) -> None:
    """All that `status`, `events` and MLflow's page tell, on one."""
    text = ask(app, "/jobs/works-1").text
    for told in ("Timeline", "submitted", "Attempts", "it runs", "loss by step", "pace", "film"):
        assert told in text, told
    reader = Reader(text)
    assert {a["aria-label"] for a in reader.all("svg")} == {"loss by step", "pace"}
    (sample, *_rest) = [a["src"] for a in reader.all("img") if "samples" in str(a["src"])]
    assert ask(app, str(sample)).body.startswith(b"\x89PNG")
    assert {"MLflow", "num_steps"} <= {word for word in ("MLflow", "num_steps") if word in text}
    waits = ask(app, "/jobs/waits-1").text
    assert "Why it waits" in waits
    assert "number 1 in line" in waits or "number 2 in line" in waits


def test_each_live_part_is_given_alone(app: Any) -> None:
    """Curves and pictures that come while somebody looks appear without a reload."""
    whole = ask(app, "/jobs/works-1").text
    live = {a["id"]: a["data-every"] for _, a in Reader(whole).tags if a.get("data-every")}
    assert live == {"now": "3", "actions": "3", "plots": "30", "pictures": "30"}
    parts = {name: ask(app, f"/jobs/works-1?part={name}").text for name in live}
    assert "<svg" in parts["plots"]
    assert "<img" in parts["pictures"]
    assert "Timeline" in parts["now"]
    assert not any("<html" in part or "Settings" in part for part in parts.values())
    assert sum(len(Reader(part).all("img")) for part in parts.values()) == 2


def test_a_set_is_browsed_by_index_and_each_image_is_the_right_one(app: Any) -> None:
    """Image 137 on the page is image 137 of the set."""
    for number in (0, 49, 50, 137, 229):
        body = ask(app, f"/jobs/set-1/set/{number}.png").body
        np.testing.assert_array_equal(decode_png(body), PIXELS[number])
    first, last = ask(app, "/jobs/set-1/set").text, ask(app, "/jobs/set-1/set?from=200").text
    assert len(Reader(first).all("img")) == PER_PAGE
    assert len(Reader(last).all("img")) == len(PIXELS) - 200
    assert 'rel="next"' in first
    assert 'rel="next"' not in last
    assert 'rel="prev"' in last


def test_a_set_that_is_drawn_has_no_workers_any_more(app: Any) -> None:
    """Beside SUCCEEDED, "0 workers" reads as a fault."""
    assert "0 workers" not in ask(app, "/jobs/set-1").text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/jobs/nothing", 404),
        ("/jobs/NOT A JOB", 400),
        ("/jobs/works-1/set", 400),
        ("/jobs/set-1/set?from=230", 400),
        ("/jobs/set-1/set?from=-1", 400),
        ("/jobs/set-1/set?from=1e3", 400),
        ("/jobs/set-1/set/230.png", 400),
        ("/jobs/works-1/pictures/spec.json", 400),
        ("/jobs/works-1/pictures/../set-1/spec.json", 400),
        ("/nothing", 404),
    ],
)
def test_what_is_not_there_is_told_and_nothing_else_of_the_store_is_shown(
    app: Any, path: str, status: int
) -> None:
    """A picture's address must not become a way to any object."""
    answer = ask(app, path)
    assert answer.status == status
    assert b"kind" not in answer.body


def test_a_store_that_does_not_answer_is_a_page_and_no_traceback() -> None:
    """The page stays open over an outage."""

    class Silent:
        def __getattr__(self, name: str) -> Any:
            raise StoreUnavailableError("the store does not answer")

    world = World()
    world.store = Silent()  # type: ignore[assignment]
    answer = ask(app_of(world), "/")
    assert answer.status == 503
    assert "does not answer" in answer.text


def test_elements_escape_all_but_themselves() -> None:
    """One place does it, so that no page can forget."""
    assert el("a", "<b>", href='"><x', data_row=True, title=None) == (
        '<a href="&quot;&gt;&lt;x" data-row>&lt;b&gt;</a>'
    )
    assert joined("<", Markup("<br>"), None) == "&lt;<br>"
    assert el("img", src="/a") == '<img src="/a">'
