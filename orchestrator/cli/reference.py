"""The verbs that show what job files hold: `schema` and `explain-field`."""

import difflib
from dataclasses import asdict

import click

from orchestrator.cli.output import Output, output_option
from orchestrator.errors import BadInputError
from orchestrator.lifecycle.state import GROUP_KINDS
from orchestrator.specs.field_docs import FieldDoc, field_docs
from orchestrator.specs.group_files import PipelineFile, SweepFile
from orchestrator.specs.kinds import JOB_KINDS
from orchestrator.specs.other_names import place_of
from orchestrator.specs.schema import job_file_schema

_KINDS = (*JOB_KINDS, *GROUP_KINDS)


@click.command("schema")
def schema_command() -> None:
    r"""Print the JSON Schema of job files, for editors.

    \b
    Examples:
      ddpmctl schema > ddpmctl.schema.json
      # yaml-language-server: $schema=ddpmctl.schema.json    (first line of a job file)
    """
    Output(as_json=True).result(job_file_schema())


@click.command("explain-field")
@click.argument("key", metavar="FIELD", default="")
@click.option("--kind", type=click.Choice(_KINDS), help="Only of jobs of this kind.")
@output_option
def explain_field_command(key: str, kind: str | None, output: Output) -> None:
    r"""Say what a field of a job file takes, its default and what it means.

    \b
    Examples:
      ddpmctl explain-field training.ema_decay
      ddpmctl explain-field sampling --kind sample
      ddpmctl explain-field ema_decay
    """
    matches = _find(key, {name: _docs(name) for name in ([kind] if kind else _KINDS)})
    value = [{"kinds": kinds, **asdict(doc)} for doc, kinds in matches.items()]
    output.result(value, "\n".join(_text(doc, kinds) for doc, kinds in matches.items()))


def _docs(kind: str) -> list[FieldDoc]:
    groups = {"pipeline": PipelineFile, "sweep": SweepFile}
    return list(field_docs(groups[kind] if kind in groups else JOB_KINDS[kind].spec))


def _find(key: str, by_kind: dict[str, list[FieldDoc]]) -> dict[FieldDoc, list[str]]:
    """Return the field and what stands right below it, each with the kinds that have it so."""
    known = {doc.key for docs in by_kind.values() for doc in docs}
    at = _place(key, known)
    kinds_of: dict[FieldDoc, list[str]] = {}
    for kind, docs in by_kind.items():
        for doc in docs:
            above = doc.key.rpartition(".")[0]
            if doc.key == at or above == at:
                kinds_of.setdefault(doc, []).append(kind)
    return kinds_of


def _place(key: str, known: set[str]) -> str:
    """Return the way that a user means: the whole way, its end, or what other tools call it."""
    if not key or key in known:
        return key
    ends = sorted(place for place in known if place.rpartition(".")[2] == key)
    last = key.rpartition(".")[2]
    place = next(iter(ends), None) or place_of(last, frozenset(known))
    if place is not None:
        return place
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else "`ddpmctl explain-field` lists those at the top"
    raise BadInputError(f"no job file has a field {key}; {hint}")


def _text(doc: FieldDoc, kinds: list[str]) -> str:
    default = "" if not doc.default else f", default {doc.default}"
    needed = ", needed" if doc.default is None else ""
    return f"{doc.key}  ({doc.type}{default}{needed}; {', '.join(kinds)})\n    {doc.meaning}"
