"""Writes what is written from the models of job files: `make reference`."""

import json
from pathlib import Path

from orchestrator.specs.reference import with_reference
from orchestrator.specs.schema import job_file_schema

ROOT = Path(__file__).resolve().parents[2]
SCHEMA, PAGE = ROOT / "jobs/schema.json", ROOT / "docs/job-files.md"


def schema_text() -> str:
    """Return the schema as its file has it."""
    return json.dumps(job_file_schema(), indent=1, ensure_ascii=False) + "\n"


def page_text() -> str:
    """Return the page on job files with the tables of this version."""
    return with_reference(PAGE.read_text("utf-8"))


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), "utf-8")
    PAGE.write_text(page_text(), "utf-8")
