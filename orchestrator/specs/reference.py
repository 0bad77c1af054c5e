"""The tables of the page on job files, written from the models."""

from collections.abc import Iterable

from orchestrator.lifecycle.retry import RetryBudget, RetryPolicy
from orchestrator.specs.field_docs import FieldDoc, field_docs, shown
from orchestrator.specs.fields import fields_of
from orchestrator.specs.group_files import PipelineFile, SweepFile
from orchestrator.specs.job import Job
from orchestrator.specs.kinds import JOB_KINDS

BEGIN = "<!-- written from the models by `make reference`; what stands below is not edited -->"
_HEAD = "| field | takes | default | |\n|---|---|---|---|"
_RETRY = "retry."


def reference_tables() -> str:
    """Return a table for every kind, one for the causes of a retry, as Markdown."""
    common = fields_of(Job).keys() - {"tracking", "resources"}
    parts = ["## Every kind", _table(d for d in field_docs(Job) if _top(d) in common)]
    parts += ["## What is tried again", _retry_table()]
    for kind, row in JOB_KINDS.items():
        first = (row.spec.__doc__ or "").splitlines()[0]
        own = [doc for doc in field_docs(row.spec) if _top(doc) not in common]
        parts += [f"## {kind}", first, _table(own)]
    for name, model in (("pipeline", PipelineFile), ("sweep", SweepFile)):
        first = (model.__doc__ or "").splitlines()[0]
        parts += [f"## {name}", first, _table(field_docs(model))]
    return "\n\n".join(parts) + "\n"


def with_reference(page: str) -> str:
    """Return a page with the tables of this version in the place of those that it has."""
    return page.partition(BEGIN)[0] + f"{BEGIN}\n\n{reference_tables()}"


def _top(doc: FieldDoc) -> str:
    return doc.key.split(".", 1)[0]


def _table(docs: Iterable[FieldDoc]) -> str:
    return "\n".join([_HEAD, *(_row(doc) for doc in docs if not doc.key.startswith(_RETRY))])


def _row(doc: FieldDoc) -> str:
    default = "**needed**" if doc.default is None else f"`{doc.default}`" if doc.default else ""
    return f"| `{doc.key}` | {doc.type} | {default} | {doc.meaning} |"


def _retry_table() -> str:
    """Return the causes with their budgets, and what a budget's numbers mean."""
    causes = {doc.key: doc.meaning for doc in field_docs(RetryPolicy, _RETRY) if doc.is_group}
    numbers = list(fields_of(RetryBudget))
    lines = [f"| cause | {' | '.join(f'`.{n}`' for n in numbers)} | |", "|---" * 6 + "|"]
    policy = RetryPolicy()
    for key, effect in causes.items():
        budget = getattr(policy, key.removeprefix(_RETRY))
        values = " | ".join(shown(getattr(budget, number)) for number in numbers)
        lines.append(f"| `{key}` | {values} | {effect} |")
    rest = [doc for doc in field_docs(RetryPolicy, _RETRY) if doc.key.count(".") == 1]
    rest = [doc for doc in rest if not doc.is_group] + list(field_docs(RetryBudget, "retry.CAUSE."))
    return "\n".join([*lines, "", _HEAD, *(_row(doc) for doc in rest)])
