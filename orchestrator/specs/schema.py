"""The JSON Schema of job files of every kind, for editors that complete and check as one types."""

import copy
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from orchestrator.specs.field_docs import meaning
from orchestrator.specs.fields import fields_of, structure_of
from orchestrator.specs.group_files import PipelineFile, SweepFile
from orchestrator.specs.kinds import JOB_KINDS, Input

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PART = "Part"
_STEP_KEYS: dict[str, Any] = {
    "after": {
        "description": "A step, or a list of steps, that must have succeeded before.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
}

_Schema = dict[str, Any]


def job_file_schema() -> _Schema:
    """Return the JSON Schema of job files."""
    models: dict[str, type[BaseModel]] = {kind: row.spec for kind, row in JOB_KINDS.items()}
    models |= {"pipeline": PipelineFile, "sweep": SweepFile}
    _, made = models_json_schema(
        [(model, "validation") for model in models.values()], ref_template="#/$defs/{model}"
    )
    defs: _Schema = made["$defs"]
    for owner in _structures(models.values()):
        _describe(defs[owner.__name__], owner)
    defs |= {f"{_PART}{name}": _relaxed(form) for name, form in defs.items()}
    for kind in JOB_KINDS:
        defs |= {f"step-{kind}": _step(defs, kind), f"run-{kind}": _run(defs, kind)}
    steps = defs["PipelineFile"]["properties"]["steps"]
    # Keys of a pattern are a pattern's properties, to which no others must be added.
    pattern = next(iter(steps.pop("patternProperties")))
    steps |= {"propertyNames": {"pattern": pattern}, "additionalProperties": _by_kind("step-")}
    job = defs["SweepFile"]["properties"]["job"]
    defs["SweepFile"]["properties"]["job"] = {**_by_kind("run-"), "description": job["description"]}
    return {
        "$schema": DIALECT,
        "title": "ddpmctl job file",
        **_by_kind("", {kind: model.__name__ for kind, model in models.items()}),
        "$defs": defs,
    }


def _by_kind(prefix: str, names: dict[str, str] | None = None) -> _Schema:
    """Return the form that depends on what `kind` says."""
    refs = names or {kind: f"{prefix}{kind}" for kind in JOB_KINDS}
    return {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"description": "What is to be done.", "enum": list(refs)}},
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": kind}}},
                "then": {"$ref": f"#/$defs/{name}"},
            }
            for kind, name in refs.items()
        ],
    }


def _structures(models: Any) -> list[Any]:
    """Return the models, and the models and dataclasses that stand in their fields, each once."""
    found: dict[str, Any] = {}
    waiting = list(models)
    while waiting:
        owner = waiting.pop()
        found[owner.__name__] = owner
        inner = (structure_of(annotation) for annotation in fields_of(owner).values())
        waiting += [one for one in inner if one is not None and one.__name__ not in found]
    return list(found.values())


def _describe(form: _Schema, owner: Any) -> None:
    """Give each field of a form its meaning, and take out what only editors would show."""
    form.pop("title", None)
    form["description"] = (owner.__doc__ or "").splitlines()[0]
    for name, field in form["properties"].items():
        field.pop("title", None)
        field["description"] = meaning(owner, name)


def _relaxed(form: _Schema) -> _Schema:
    """Return a form in which nothing must stand: the rest comes from a matrix."""
    part: _Schema = copy.deepcopy(form)
    part.pop("required", None)
    _rename(part)
    return part


def _rename(value: Any) -> None:
    if isinstance(value, dict):
        if "$ref" in value:
            value["$ref"] = value["$ref"].replace("#/$defs/", f"#/$defs/{_PART}")
        for inner in value.values():
            _rename(inner)
    elif isinstance(value, list):
        for inner in value:
            _rename(inner)


def _run(defs: _Schema, kind: str) -> _Schema:
    part: _Schema = copy.deepcopy(defs[f"{_PART}{JOB_KINDS[kind].spec.__name__}"])
    del part["properties"]["name"]
    return part


def _step(defs: _Schema, kind: str) -> _Schema:
    form: _Schema = copy.deepcopy(defs[JOB_KINDS[kind].spec.__name__])
    del form["properties"]["name"]
    form["required"] = [name for name in form["required"] if name != "name"]
    form["properties"] |= _STEP_KEYS
    for field in {Input.MODEL, Input.INIT} & JOB_KINDS[kind].inputs:
        own = copy.deepcopy(defs["InitRef" if field is Input.INIT else "ModelRef"])
        message = "The step whose model it takes; with `job`, the step of a checkpoint."
        own["properties"]["step"] = {
            "description": message,
            "anyOf": [{"type": "string"}, {"type": "integer", "minimum": 1}],
        }
        form["properties"][field.value] = own
    for field in {Input.SAMPLES, Input.REFERENCE, Input.DATASET} & JOB_KINDS[kind].inputs:
        own = copy.deepcopy(defs["DatasetSpec" if field is Input.DATASET else "SetRef"])
        own["properties"]["step"] = {"description": "The step whose images it takes."}
        own["properties"]["step"]["type"] = "string"
        own.pop("required", None)
        described = form["properties"][field.value].get("description", "")
        form["properties"][field.value] = {**own, "description": described}
    return form
