"""What is written from the models of job files says what the models say."""

import copy
import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from orchestrator.specs.document import load_document, parse_document
from orchestrator.specs.field_docs import field_docs, own_meanings
from orchestrator.specs.fields import all_locations
from orchestrator.specs.group_files import PipelineFile, SweepFile
from orchestrator.specs.kinds import JOB_KINDS
from tests.docs.write_reference import ROOT, SCHEMA

FILES = sorted((ROOT / "jobs").glob("*.yaml"))
MODELS = [*(row.spec for row in JOB_KINDS.values()), PipelineFile, SweepFile]


def faults(value: dict[str, Any]) -> list[str]:
    """Return what an editor would underline."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    return [fault.message for fault in Draft202012Validator(schema).iter_errors(value)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_job_files_name_their_schema_and_keep_to_it(path: Any) -> None:
    """An editor then completes what a newcomer types into a copy."""
    first = path.read_text("utf-8").splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA.name}"
    assert faults(load_document(path).value) == []


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_has_a_meaning(model: Any) -> None:
    """A table with empty cells is no reference."""
    docs = {doc.key: doc for doc in field_docs(model)}
    assert {".".join(place) for place in all_locations(model)} == docs.keys()
    assert [key for key, doc in docs.items() if not doc.meaning] == []


def models_below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield all models of job files that are made from one."""
    for below in model.__subclasses__():
        if below.__module__.startswith("orchestrator.specs."):
            yield below
        yield from models_below(below)


def test_what_a_field_means_is_said_once() -> None:
    """Said again where a model is made from another, one of the two texts grows old."""
    twice = [
        f"{model.__name__}.{name} as in {above.__name__}"
        for model in models_below(BaseModel)
        for above in inspect.getmro(model)[1:]
        for name, told in own_meanings(above).items()
        if own_meanings(model).get(name) == told
    ]
    assert twice == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("learning_rate: 1e-3", "learning_rat: 1e-3"),
        ("learning_rate: 1e-3", "learning_rate: fast"),
        ("kind: train", "kind: trian"),
        ("name: digits\n", ""),
        ("gpus_per_worker: auto", "gpus_per_worker: all"),
        ("name: digits\n", "name: digits\nsmoke_of: x\n"),
    ],
)
def test_editors_underline_what_submit_would_refuse(right: str, wrong: str) -> None:
    """Sooner than by submitting it."""
    text = (ROOT / "jobs/train.yaml").read_text("utf-8")
    assert right in text
    assert faults(parse_document(text.replace(right, wrong, 1), "f").value) != []


def test_steps_and_runs_are_jobs_without_a_name() -> None:
    """A step may draw from another one's model; of a run the matrix gives a part."""
    pipeline = load_document(ROOT / "jobs/pipeline.yaml").value
    sweep = load_document(ROOT / "jobs/sweep.yaml").value
    for place in (pipeline["steps"]["train"], sweep["job"]):
        place["name"] = "x"
    assert faults(pipeline) != []
    assert faults(sweep) != []
    varied = copy.deepcopy(sweep)
    del varied["job"]["name"], varied["job"]["training"]
    varied["matrix"]["training.num_steps"] = [5, 6]
    assert faults(varied) == []
