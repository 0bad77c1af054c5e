"""The manual page, written from what `--help` shows."""

import inspect
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import click

_EXIT_CODES = (
    ("0", "Done; of wait: the job succeeded."),
    ("1", "An error."),
    ("2", "Wrong usage, or a wrong job file."),
    ("100", "The job failed."),
    ("101", "The job has not ended in time."),
    ("102", "There is no such job."),
    ("103", "The job was cancelled."),
)
_ENVIRONMENT = (
    ("DDPMCTL_STORE", "s3://bucket/prefix of the jobs; without it the embedded stack is used."),
    ("DDPMCTL_HOME", "Folder of the embedded stack; .ddpmctl here or in a folder above."),
    ("DDPMCTL_PATIENCE_S", "Seconds that verbs wait for a cluster that comes up."),
    ("DDPMCTL_USER", "Who submits, instead of the user of the machine."),
    ("RAY_ADDRESS", "The Ray cluster, with DDPMCTL_STORE."),
    ("MLFLOW_TRACKING_URI", "The MLflow server, with DDPMCTL_STORE."),
    ("AWS_*", "The credentials of the store, as every S3 tool takes them."),
    ("NO_COLOR", "No colours."),
)


def manual_page(root: click.Context) -> str:
    """Return the manual page of a program in the man macros of roff.

    Args:
        root: Of its outermost group.
    """
    group = root.command
    lines = [
        f'.TH DDPMCTL 1 "" "ddpmctl {_version()}" "User Commands"',
        ".SH NAME",
        "ddpmctl \\- a queue for diffusion training and sampling on a Ray cluster",
        ".SH SYNOPSIS",
        "\\fBddpmctl\\fR \\fIVERB\\fR [\\fIARGUMENT\\fR]...",
        ".SH DESCRIPTION",
        *_paragraphs(group.help or ""),
        ".SH VERBS",
        *_verbs(root, ""),
        ".SH EXIT STATUS",
        *_terms(_EXIT_CODES),
        ".SH ENVIRONMENT",
        *_terms(_ENVIRONMENT),
    ]
    return "\n".join(lines)


def _version() -> str:
    try:
        return version("ddpmctl")
    except PackageNotFoundError:
        return ""


def _verbs(here: click.Context, above: str) -> Iterator[str]:
    group = here.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(here):
        command = group.get_command(here, name)
        if command is None or command.hidden:
            continue
        context = click.Context(command, info_name=name, parent=here)
        full = f"{above}{name}"
        if isinstance(command, click.Group):
            yield from _verbs(context, f"{full} ")
            continue
        pieces = " ".join(command.collect_usage_pieces(context))
        yield f".SS {_escaped(full)} {_escaped(pieces)}"
        yield from _paragraphs(command.help or "")
        yield from _terms(_options(command, context))


def _options(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in parameter.opts:
            yield record


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a docstring; those that click keeps as they stand stay so."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        block = paragraph.strip("\n")
        if "\b" in block:
            kept = block.replace("\b", "").strip("\n").splitlines()
            yield from (".PP", ".nf", *map(_escaped, kept), ".fi")
        elif block.strip():
            yield from (".PP", _escaped(" ".join(block.split())))


def _terms(terms: Iterator[tuple[str, str]] | tuple[tuple[str, str], ...]) -> Iterator[str]:
    for term, meaning in terms:
        yield from (".TP", f"\\fB{_escaped(term)}\\fR", _escaped(" ".join(meaning.split())))


def _escaped(line: str) -> str:
    """Return a line that roff takes as text: no escapes, no requests."""
    text = line.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return f"\\&{text}" if text.startswith((".", "\\(aq")) else text
