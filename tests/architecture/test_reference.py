"""What is written from the models of job files is written from those of this version."""

import json

from jsonschema import Draft202012Validator

from tests.docs.write_reference import PAGE, SCHEMA, page_text, schema_text

CURE = "a field or its docstring has changed: run `make reference`"


def test_the_schema_and_the_page_on_job_files_are_those_of_the_models() -> None:
    """A reference that says something else than the code is worse than none."""
    Draft202012Validator.check_schema(json.loads(schema_text()))
    assert SCHEMA.read_text("utf-8") == schema_text(), CURE
    assert PAGE.read_text("utf-8") == page_text(), CURE
