"""Where a verb's words go: to a person, or to a program that reads JSON."""

import io
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from datetime import datetime
from typing import Any, NoReturn, TypeVar

import click

from orchestrator.cli.unforeseen import drop_output

EXIT_FAILED, EXIT_NOT_ENDED, EXIT_CANCELLED = 100, 101, 103
_EXIT_BY_STATE = {"SUCCEEDED": 0, "FAILED": EXIT_FAILED, "CANCELLED": EXIT_CANCELLED}

Verb = TypeVar("Verb", bound=Callable[..., Any])


class Output:
    """One verb's output.

    Args:
        as_json: Standard output holds nothing but JSON.
        form: What was asked for: "text", "json", or one of a verb's own.
    """

    def __init__(self, as_json: bool, form: str = "text") -> None:
        self.as_json = as_json
        self.form = form

    def say(self, line: str) -> None:
        """Tell a person what happens, on standard error."""
        click.echo(line, err=True)

    def result(self, value: object, text: str | None = None) -> None:
        """Give the result: JSON, or the text for people."""
        if self.as_json:
            click.echo(json.dumps(value, indent=1, default=plain))
        elif self.form == "yaml":
            click.echo(_yaml(value))
        elif text is not None:
            click.echo(text)

    def text(self, text: str | None) -> None:
        """Give a result that has one form alone."""
        if text is not None:
            click.echo(text)

    def hint(self, text: str) -> None:
        """Tell a person what to do next, on standard error; programs get nothing."""
        if text and self.form == "text":
            click.echo(text, err=True)

    def line(self, value: object, text: str) -> None:
        """Give one of many results: a line of JSON, or of text."""
        click.echo(json.dumps(value, default=plain) if self.as_json else text)


def plain(value: object) -> object:
    """Return what JSON has no form for in one that it has: records as mappings, times as text."""
    if isinstance(value, datetime):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return vars(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _yaml(value: object) -> str:
    """Return a result as YAML: the values of its JSON."""
    from ruamel.yaml import YAML

    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(json.loads(json.dumps(value, default=plain)), stream)
    return stream.getvalue().rstrip()


def output_forms(*more: str) -> Callable[[Verb], Verb]:
    """Give a verb `-o` with further forms; it finds the one that was asked for in `Output.form`."""
    return _form_option("-o", "--output", more=more)


def output_option(verb: Verb) -> Verb:
    """Give a verb `-o text|json`; its function takes an `Output` named `output`."""
    return _form_option("-o", "--output")(verb)


def short_output_option(verb: Verb) -> Verb:
    """Give the same to a verb whose `--output` is a path."""
    return _form_option("-o")(verb)


def _form_option(*names: str, more: Sequence[str] = ()) -> Callable[[Verb], Verb]:
    return click.option(
        *names,
        "output",
        type=click.Choice(["text", "json", *more]),
        default="text",
        show_default=True,
        callback=lambda _context, _option, value: Output(value == "json", value),
        help="json: only JSON on stdout, errors too.",
    )


def complain(message: str, exit_code: int, as_json: bool) -> NoReturn:
    """Say what went wrong in one line and end the process."""
    line = " ".join(message.split())
    value = json.dumps({"error": line, "exit_code": exit_code})
    try:
        click.echo(value if as_json else f"error: {line}", err=not as_json)
    except OSError:  # where the result was to go, nothing goes
        drop_output()
        with suppress(OSError):
            click.echo(f"error: {line}", err=True)
    except ValueError:  # a stream that was closed before the process began
        drop_output()
    _flush()
    sys.exit(exit_code)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        drop_output()


def exit_code_of(state: str) -> int:
    """Return the exit code that stands for a job's state; 101 if it has not ended."""
    return _EXIT_BY_STATE.get(state, EXIT_NOT_ENDED)
