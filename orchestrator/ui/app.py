"""The web application: which address shows what, to whom."""

import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from orchestrator.errors import (
    BadInputError,
    JobNotFoundError,
    ObjectNotFoundError,
    OrchestratorError,
    StoreError,
)
from orchestrator.specs.kinds import Output, leaves
from orchestrator.ui.access import COOKIE_AGE_S, Access, is_loopback
from orchestrator.ui.elements import Markup, el, joined
from orchestrator.ui.job_page import action_forms, job_now, pictures, settings
from orchestrator.ui.jobs_page import jobs_now, search_form
from orchestrator.ui.layout import SCRIPT, STYLE, Part, page
from orchestrator.ui.looks import Looks
from orchestrator.ui.set_page import set_page

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
        "script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_MAX_FORM_BYTES = 4096
_OFTEN_S, _SLOWLY_S = 3, 30  # a plot or a picture costs more than a line
_Next = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Actions:
    """What the page may change.

    Attributes:
        cancel: Asks for the end of a job.
        retry: Asks for another try of a job.
    """

    cancel: Callable[[str], None]
    retry: Callable[[str], None]


def build_app(looks: Looks, access: Access, actions: Actions | None = None) -> Starlette:
    """Return the application.

    Args:
        looks: What it shows.
        access: Who may see it.
        actions: What it may change; None for nothing.
    """
    pages = _Pages(looks, access, actions)
    routes = [
        Route("/", pages.jobs),
        Route("/jobs/{job}", pages.job),
        Route("/jobs/{job}/pictures/{path:path}", pages.picture),
        Route("/jobs/{job}/set", pages.samples),
        Route("/jobs/{job}/set/{number:int}.png", pages.image),
        Route("/ui.css", lambda _: PlainTextResponse(STYLE, media_type="text/css")),
        Route("/ui.js", lambda _: PlainTextResponse(SCRIPT, media_type="text/javascript")),
    ]
    if actions is not None:
        routes.append(Route("/jobs/{job}/{verb}", pages.act, methods=["POST"]))
    guard = Middleware(BaseHTTPMiddleware, dispatch=_Guard(access))
    return Starlette(routes=routes, middleware=[guard])


class _Guard:
    """Lets nobody in who has neither cookie nor token, and gives each answer its headers."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def __call__(self, request: Request, call_next: _Next) -> Response:
        """Answer a request, or have it answered."""
        answer = self._refusal(request) or await self._answered(request, call_next)
        answer.headers.update(_HEADERS)
        return answer

    def _refusal(self, request: Request) -> Response | None:
        if not is_loopback(request.headers.get("host", "")):
            return PlainTextResponse("this page is for this machine alone", 403)
        token = request.query_params.get("token")
        if token is not None and self._access.opens(token):
            answer: Response = RedirectResponse(f"/{request.url.path.lstrip('/')}")
            answer.set_cookie(
                self._access.cookie_name,
                self._access.cookie,
                max_age=COOKIE_AGE_S,
                httponly=True,
                samesite="lax",
            )
            return answer
        if not self._access.knows(request.cookies.get(self._access.cookie_name, "")):
            return PlainTextResponse("open the link that `ddpmctl ui` printed", 403)
        return None

    async def _answered(self, request: Request, call_next: _Next) -> Response:
        try:
            return await call_next(request)
        except (JobNotFoundError, ObjectNotFoundError) as error:
            return _trouble(404, error)
        except BadInputError as error:
            return _trouble(400, error)
        except StoreError as error:
            return _trouble(503, error)
        except OrchestratorError as error:
            return _trouble(500, error)


def _trouble(status: int, error: OrchestratorError) -> Response:
    message = el("p", str(error), class_="warn")
    return HTMLResponse(page("That did not work", message), status)


class _Pages:
    """The pages; each is computed in a thread, since it waits for the store."""

    def __init__(self, looks: Looks, access: Access, actions: Actions | None) -> None:
        self._looks = looks
        self._access = access
        self._actions = actions
        self._drawing = threading.Lock()  # plots take their style from the process

    def jobs(self, request: Request) -> Response:
        """Show all jobs."""

        def now() -> Markup:
            return jobs_now(self._looks.overview(), request.query_params, self._looks.why)

        return _shown(request, "Jobs", [_Live("now", now)], search_form(request.query_params))

    def job(self, request: Request) -> Response:
        """Show one job."""
        job_id = self._looks.job_id(request.path_params["job"])
        live = [
            _Live("now", lambda: job_now(self._looks.view(job_id))),
            _Live("actions", lambda: self._actions_of(job_id)),
            _Live("plots", lambda: self._plots(job_id), _SLOWLY_S),
            _Live("pictures", lambda: pictures(job_id, self._looks.pictures(job_id)), _SLOWLY_S),
        ]
        return _shown(request, job_id, live, settings(self._looks.settings(job_id)))

    def _actions_of(self, job_id: str) -> Markup:
        status = self._looks.status(job_id)
        of_set = el("p", el("a", "the images of its set, by number", href=f"/jobs/{job_id}/set"))
        return joined(
            action_forms(status, self._access.csrf(job_id)) if self._actions else None,
            of_set if leaves(status.kind, Output.SAMPLES) else None,
        )

    def _plots(self, job_id: str) -> Markup | None:
        with self._drawing:
            found = self._looks.plots(job_id)
        figures = [el("figure", Markup(svg)) for svg in found]
        plots = el("div", *figures, class_="plots")
        return el("section", el("h2", "Curves"), plots) if figures else None

    def picture(self, request: Request) -> Response:
        """Show a picture that the job left in the store."""
        job_id = self._looks.job_id(request.path_params["job"])
        return _png(self._looks.picture(job_id, request.path_params["path"]))

    def samples(self, request: Request) -> Response:
        """Show a page of a set."""
        job_id = self._looks.job_id(request.path_params["job"])
        text = request.query_params.get("from", "0")
        start = int(text) if text.isdecimal() and len(text) < 12 else -1
        body = set_page(self._looks.samples(job_id), job_id, start)
        return HTMLResponse(page(f"The set of {job_id}", body))

    def image(self, request: Request) -> Response:
        """Show one image of a set."""
        job_id = self._looks.job_id(request.path_params["job"])
        return _png(self._looks.image(job_id, request.path_params["number"]))

    async def act(self, request: Request) -> Response:
        """Ask for a change of a job, if the form comes from a page of this server."""
        job, verb = request.path_params["job"], request.path_params["verb"]
        known: dict[str, Callable[[str], None]] = vars(self._actions) if self._actions else {}
        if verb not in known:
            return PlainTextResponse("there is no such action", 404)
        mark = await _mark_of(request)
        origin, host = request.headers.get("origin", ""), request.headers.get("host", "")
        if not self._access.takes_form(job, mark, origin, host):
            return PlainTextResponse("this form does not come from this page", 403)
        await run_in_threadpool(known[verb], self._looks.job_id(job))
        return RedirectResponse(f"/jobs/{job}", 303)


@dataclass(frozen=True)
class _Live:
    """A part that the page asks for again and again: its name, its content, how often."""

    name: str
    now: Callable[[], Markup | None]
    every_s: int = _OFTEN_S


def _shown(request: Request, title: str, live: Sequence[_Live], *rest: Markup) -> Response:
    """Return a page, or the one part of it that is asked for."""
    for one in live:
        if request.query_params.get("part") == one.name:
            return HTMLResponse(one.now() or "")
    parts = [Part(one.name, one.now(), one.every_s) for one in live]
    return HTMLResponse(page(title, *parts, *rest))


async def _mark_of(request: Request) -> str:
    """Return a form's mark; "" of one that is too long to be ours."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            return ""
    return parse_qs(body.decode("ascii", errors="replace")).get("csrf", [""])[0]


def _png(body: bytes) -> Response:
    return Response(body, media_type="image/png")
