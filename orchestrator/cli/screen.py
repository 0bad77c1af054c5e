"""A terminal that is drawn over and over, and the keys that are pressed meanwhile."""

import os
import re
import select
import shutil
import sys
from collections.abc import Sequence
from typing import Any, Self

import click

_TO_SCREEN, _FROM_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_KEYS = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1b[5~": "page-up",
    b"\x1b[6~": "page-down",
    b"\x1b": "back",
    b"\x7f": "back",
    b"\r": "enter",
    b"\n": "enter",
    b"k": "up",
    b"j": "down",
    b" ": "page-down",
}


# One key: what begins with an escape, up to its last letter, or one character.
_KEY = re.compile(
    rb"\x1b[\[O][0-9;]*[A-Za-z~]|\x1b|[\x00-\x7f]|[\xc0-\xff][\x80-\xbf]*|.", re.DOTALL
)


def keys_of(pressed: bytes) -> list[str]:
    """Return the names of keys that came together, as from somebody who types ahead."""
    return [key_name(key) for key in _KEY.findall(pressed)]


def key_name(pressed: bytes) -> str:
    """Return what a key that was pressed is called: "up", "enter", "q"; "" for one without name."""
    if pressed in _KEYS:
        return _KEYS[pressed]
    text = pressed.decode("utf-8", errors="ignore")
    return text if len(text) == 1 and text.isprintable() else ""


def is_screen() -> bool:
    """Tell whether there is a terminal that can be drawn on, and keys."""
    return sys.stdout.isatty() and sys.stdin.isatty() and os.environ.get("TERM") != "dumb"


class Screen:
    """The terminal's second page, without echo; left as it was when the block ends.

    Args:
        color: Whether colours are drawn.
    """

    def __init__(self, color: bool = True) -> None:
        self._color = color
        self._before: list[Any] | None = None
        self._ahead: list[str] = []

    def __enter__(self) -> Self:
        import termios
        import tty

        self._before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        self._write(_TO_SCREEN)
        return self

    def __exit__(self, *_: object) -> None:
        import termios

        if self._before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
        self._write(_FROM_SCREEN)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        columns, lines = shutil.get_terminal_size((80, 24))
        return max(20, columns), max(6, lines)

    def draw(self, lines: Sequence[str]) -> None:
        """Show lines from the top; those that do not fit are left out."""
        shown = lines[: self.size[1]]
        if not self._color:
            shown = [click.unstyle(line) for line in shown]
        body = "\n".join(f"{line}{_END_OF_LINE}" for line in shown)
        self._write(f"{_HOME}{body}{_BELOW}")

    def key(self, within_s: float) -> str:
        """Return the key that is pressed within some seconds; "" for none."""
        if self._ahead:
            return self._ahead.pop(0)
        ready, _, _ = select.select([sys.stdin], [], [], within_s)
        if not ready:
            return ""
        pressed = os.read(sys.stdin.fileno(), 1024)
        first, *self._ahead = keys_of(pressed) or ["q"]  # whoever held the terminal is gone
        return first

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
