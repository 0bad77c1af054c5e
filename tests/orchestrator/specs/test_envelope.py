"""A spec is what the user wrote; what else is known of a job stands beside it."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client.submit import submit_job, submit_with_smoke
from orchestrator.errors import BadInputError, StoredFormError
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_submitted
from orchestrator.specs.envelope import STORED_SPEC, Asked, Origin, StoredSpec
from orchestrator.specs.files import load_job_file
from orchestrator.specs.group import GroupJob
from orchestrator.store.codec import VERSION_KEY
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore
from tests.support.world import World, train_job

TRAIN = "kind: train\nname: t\ndataset: {source: digits}\ntraining: {num_steps: 5}\n"
PIPELINE = """\
kind: pipeline
name: p
steps:
  a: {kind: train, dataset: {source: digits}, training: {num_steps: 5}}
  b: {kind: sample, model: {step: a}, num_samples: 64}
"""


def written(store: MemoryStore, job_id: str) -> dict[str, Any]:
    """Return what lies in the store."""
    value: dict[str, Any] = json.loads(store.get(JobPaths(job_id).spec).body)
    return value


@pytest.mark.parametrize("key", ["smoke_of", "waits_for_smoke", "parent", "step", "asked"])
def test_no_user_writes_what_the_orchestrator_knows(tmp_path: Path, key: str) -> None:
    """A job that called itself a smoke test ended after two steps, and was in no `list` but Ray's.

    In a lone job, in a step, and by `--set`.
    """
    file = tmp_path / "job.yaml"
    file.write_text(f"{TRAIN}{key}: x\n")
    with pytest.raises(BadInputError, match=f"unknown key '?{key}"):
        load_job_file(file)
    file.write_text(PIPELINE.replace("{kind: train,", f"{{kind: train, {key}: x,"))
    with pytest.raises(BadInputError, match=key):
        load_job_file(file)
    file.write_text(TRAIN)
    with pytest.raises(BadInputError, match=key):
        load_job_file(file, [f"{key}=x"])


def test_what_is_stored_as_spec_is_what_was_asked() -> None:
    """Nothing of smoke tests stands among the fields of a job, and its version stands above."""
    store = MemoryStore()
    submit_with_smoke(store, train_job(), "main")
    main, smoke = written(store, "main"), written(store, "main-smoke")
    assert main[VERSION_KEY] == smoke[VERSION_KEY] == 1
    assert main["spec"] == train_job().model_dump(mode="json")
    assert main["origin"]["waits_for_smoke"] == "main-smoke"
    assert smoke["origin"]["smoke_of"] == "main"
    assert not {"smoke_of", "waits_for_smoke"} & (main["spec"].keys() | smoke["spec"].keys())


def test_a_child_knows_its_group_and_what_it_waits_for(tmp_path: Path) -> None:
    """Both come from the orchestrator, which creates it."""
    world, file = World(), tmp_path / "job.yaml"
    file.write_text(PIPELINE)
    submit_with_smoke(world.store, load_job_file(file).spec, "p")
    world.step(2)
    child = read_submitted(world.records, "p-a")
    assert child.origin == Origin(parent="p", step="a", waits_for_smoke="p-a-smoke")
    assert written(world.store, "p-a")["spec"] == child.spec.model_dump(mode="json")


def test_a_spec_from_before_the_envelope_is_read_as_before() -> None:
    """All of it stood among the fields of the spec, null where there was nothing."""
    job = train_job().model_dump(mode="json")
    bare = {
        **job,
        "smoke_of": None,
        "waits_for_smoke": "t-smoke",
        "parent": {"job_id": "g", "step": "t"},
        "asked": {"parts": {"": {"kind": "train"}}, "variables": {"A": "1"}, "user": "ada"},
    }
    store = MemoryStore()
    store.put(JobPaths("g-t").spec, json.dumps(bare).encode())
    found = read_submitted(RecordStore(store), "g-t")
    assert found.spec == train_job()
    assert found.origin == Origin(parent="g", step="t", waits_for_smoke="t-smoke")
    assert found.asked == Asked({"": {"kind": "train"}}, {"A": "1"}, "ada")
    record = RecordStore(store).read("g-t").record
    assert (record.parent, record.step, record.owner) == ("g", "t", "ada")


def test_a_group_from_before_the_envelope_keeps_what_its_children_wait_for(tmp_path: Path) -> None:
    """An upgrade in the middle of a pipeline lets no step start untried."""
    file = tmp_path / "job.yaml"
    file.write_text(PIPELINE)
    group = load_job_file(file).spec
    assert isinstance(group, GroupJob)
    bare = group.with_ids("p").model_dump(mode="json")
    for child in bare["children"]:
        del child["waits_for_smoke"]
        waits_for = "p-a-smoke" if child["step"] == "a" else None
        child["spec"] |= {"smoke_of": None, "waits_for_smoke": waits_for}
    store = MemoryStore()
    store.put(JobPaths("p").spec, json.dumps(bare).encode())
    found = read_submitted(RecordStore(store), "p").spec
    assert isinstance(found, GroupJob)
    assert [child.waits_for_smoke for child in found.children] == ["p-a-smoke", ""]
    assert found.children[0].spec == group.with_ids("p").children[0].spec


def test_submitting_again_without_the_smoke_test_is_another_request() -> None:
    """The one waits, the other does not."""
    store = MemoryStore()
    submit_with_smoke(store, train_job(), "main")
    with pytest.raises(BadInputError, match="waits_for_smoke"):
        submit_job(store, train_job(), "main")


def test_a_spec_of_a_newer_version_is_refused_in_one_line() -> None:
    """And is no job of this version's orchestrator."""
    stored = json.loads(STORED_SPEC.encode(StoredSpec(spec=train_job().model_dump(mode="json"))))
    store = MemoryStore()
    store.put(JobPaths("t").spec, json.dumps({**stored, VERSION_KEY: 2}).encode())
    with pytest.raises(StoredFormError, match="a newer version wrote it"):
        RecordStore(store).read("t")
