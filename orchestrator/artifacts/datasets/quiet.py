"""Keeps the libraries that decode pictures from writing between our lines, in any thread."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class _Quiet:
    """Counts who wants Pillow quiet, so that the last one to leave brings its words back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num = 0
        self._level = logging.NOTSET
        self._warnings = warnings.catch_warnings()

    def enter(self) -> None:
        """Be one more who wants it quiet."""
        with self._lock:
            self._num += 1
            if self._num == 1:
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore")
                self._level = logging.getLogger("PIL").level
                logging.getLogger("PIL").setLevel(logging.CRITICAL)

    def leave(self) -> None:
        """Be one less."""
        with self._lock:
            self._num -= 1
            if self._num == 0:
                logging.getLogger("PIL").setLevel(self._level)
                self._warnings.__exit__(None, None, None)


_QUIET = _Quiet()


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Keep Pillow's own words off the terminal while pictures are decoded, in any thread."""
    _QUIET.enter()
    try:
        yield
    finally:
        _QUIET.leave()
