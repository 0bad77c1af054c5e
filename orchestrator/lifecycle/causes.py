"""Which reason an error stands for, looking through what wraps it, by the table of known errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.errors import OrchestratorError, SmokeTestError
from orchestrator.lifecycle.known_errors import (
    BY_CLASS,
    BY_ERRNO,
    BY_NAME,
    BY_WORDS,
    CODE,
    EXPLAINS,
    INSIDE,
    SYSTEM,
    WRAPPERS,
    Cause,
)
from orchestrator.lifecycle.state import Reason


def reason_of(error: BaseException) -> Reason:
    """Return the reason that an error stands for, looking through what Ray wraps it in."""
    return _explaining(error)[0].reason


def failed_ranks(error: BaseException) -> tuple[int, ...]:
    """Return the ranks whose node may be at fault, not those that only lost a neighbour.

    Ray Train's error holds one failure for each rank that had one.
    """
    failures: dict[int, BaseException] = {}
    for one in _chain(error):
        failures.update(_worker_failures(one))
    return tuple(sorted(rank for rank, e in failures.items() if _explaining(e)[0].blames_node))


def headline(error: BaseException) -> str:
    """Return the line that says most of what went wrong, without what Ray wraps it in."""
    root = _explaining(error)[1]
    lines = [line.strip() for line in str(root).strip().splitlines() if line.strip()]
    text = lines[-1] if lines else type(root).__name__
    if lines and not isinstance(root, OrchestratorError):
        text = f"{type(root).__name__}: {text}"
    return text if len(text) <= 500 else f"{text[:497]}..."


def unwrapped(error: BaseException) -> BaseException:
    """Return what an actor raised, without the doubles in which Ray hands it out."""
    while _is_wrapper(error) and isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    return error


@contextmanager
def raising_causes() -> Iterator[None]:
    """Raise, of what goes wrong inside, the error that explains it: Ray carries no `__cause__`."""
    try:
        yield
    except Exception as error:
        root = _explaining(error)[1]
        if root is error:
            raise
        raise root from error


def _explaining(error: BaseException) -> tuple[Cause, BaseException]:
    """Return the cause that explains an error best, and the error that stands for it."""
    stories = [_story(failure) for failure in _failures(error)]
    if not stories:  # a wrapper around nothing: whoever made it is the system
        return SYSTEM, error
    return min(stories, key=lambda story: _rank(story[0]))


def _rank(cause: Cause) -> tuple[bool, int]:
    return cause.is_echo, EXPLAINS.index(cause.reason)


def _failures(error: BaseException) -> Iterator[BaseException]:
    """Yield the failures that an error holds, each the outermost one that is no wrapper."""
    waiting, seen = [error], set[int]()
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        if not _is_wrapper(current) or _cause_by_name(current) is not None:
            yield current
        if _is_wrapper(current):
            waiting += _held(current)


def _story(failure: BaseException) -> tuple[Cause, BaseException]:
    """Return what one failure stands for: what is known of it or of what it was raised from."""
    known = [(cause, one) for one in _chain(failure) if (cause := own_cause(one)) is not None]
    return min(known, key=lambda story: _rank(story[0]), default=(CODE, failure))


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and all that it holds: causes, and the failures of single workers."""
    chain: list[BaseException] = []
    waiting = [error]
    while waiting:
        current = waiting.pop(0)
        if not any(current is one for one in chain):
            chain.append(current)
            waiting += _held(current)
    return chain


def _held(error: BaseException) -> list[BaseException]:
    group = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    inside = (getattr(error, name, None) for name in INSIDE)
    return [
        one
        for one in (*_worker_failures(error).values(), *group, *inside)
        if isinstance(one, BaseException)
    ]


def _worker_failures(error: BaseException) -> dict[int, BaseException]:
    failures = getattr(error, "worker_failures", None)
    return failures if isinstance(failures, dict) else {}


def _is_wrapper(error: BaseException) -> bool:
    return bool(_worker_failures(error)) or not WRAPPERS.isdisjoint(_names(error))


def _names(error: BaseException) -> list[tuple[str, str]]:
    """Return the package and the name of an error's classes, the nearest one first."""
    return [(cls.__module__.partition(".")[0], cls.__name__) for cls in type(error).__mro__]


def own_cause(error: BaseException) -> Cause | None:
    """Return what an error stands for by itself, or None if nothing is known of its class."""
    if _is_wrapper(error):
        return _cause_by_name(error)
    if isinstance(error, SmokeTestError):
        return Cause(Reason(error.reason))
    for kind, cause in BY_CLASS:
        if isinstance(error, kind):
            return cause
    return _cause_by_name(error) or _cause_of_system(error) or _cause_by_words(error)


def _cause_by_name(error: BaseException) -> Cause | None:
    wrapped = _is_wrapper(error)
    for package, name in _names(error):
        if (package, name) in WRAPPERS or (wrapped and name in ("RayError", "RayTrainError")):
            continue
        cause = BY_NAME.get(package, {}).get(name)
        if cause is not None:
            return cause
    return None


def _cause_of_system(error: BaseException) -> Cause | None:
    return BY_ERRNO.get(error.errno) if isinstance(error, OSError) else None


def _cause_by_words(error: BaseException) -> Cause | None:
    if not isinstance(error, RuntimeError):
        return None
    said = str(error).lower()
    return next((cause for words, cause in BY_WORDS if any(w in said for w in words)), None)
