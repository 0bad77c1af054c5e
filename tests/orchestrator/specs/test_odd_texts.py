"""What a user types comes through every way in unchanged, or is refused in one line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli.main import main
from orchestrator.client.submit import submit_job
from orchestrator.errors import BadInputError
from orchestrator.jobs.queue import read_quotas, set_quota
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_submission
from orchestrator.specs.files import JobFile, load_job_file
from orchestrator.specs.group import GroupJob
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.train import TrainJob
from orchestrator.store.names import check_name
from tests.support.fakes import MemoryStore
from tests.support.odd_texts import ODD_TEXTS

PLAIN = (*ODD_TEXTS, "two\nlines", " blank ends ", "-", "'", '"', "#")
TEXTS = (*PLAIN, "yes", "1e3", "null")
NAMES = (*PLAIN, "UPPER", "a--b", "-a", "a-", "a/b", "..", "a_b", "a.b", "a" * 64, "é", "")


def load(folder: Path, text: str, *overrides: str, **environment: str) -> JobFile:
    """Read a job file's text."""
    file = folder / "job.yaml"
    file.write_text(text, "utf-8")
    return load_job_file(file, overrides, environment)


def stored(job_file: JobFile) -> TrainJob:
    """Submit a training and return what the orchestrator will read."""
    store = MemoryStore()
    job_id = submit_job(store, job_file.spec, None, job_file.asked).job_id
    spec = read_submission(RecordStore(store), job_id)
    assert isinstance(spec, TrainJob)
    return spec


def train(source: str = "digits", experiment: str = "e", name: str = "n") -> str:
    """Return a training's job file with texts in JSON's quotes, which are YAML's as well."""
    quoted = {key: json.dumps(text, ensure_ascii=False) for key, text in locals().items()}
    return (
        f"kind: train\nname: {quoted['name']}\ndataset: {{source: {quoted['source']}}}\n"
        f"tracking: {{experiment: {quoted['experiment']}}}\ntraining: {{num_steps: 5}}\n"
    )


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_the_same_by_file_and_by_set_and_from_the_environment(
    text: str, tmp_path: Path
) -> None:
    """A training on another folder than the one that was named is found out weeks later."""
    by_file = stored(load(tmp_path, train(source=text, experiment=text)))
    quoted = json.dumps(text, ensure_ascii=False)
    ways = [f"dataset.source={quoted}", f"tracking.experiment={quoted}"]
    by_set = stored(load(tmp_path, train(), *ways))
    from_there = train(source="${ODD}", experiment="${ODD}")
    found = [by_file, by_set]
    if text in PLAIN:  # a variable may also be a number, or yes and no
        found.append(stored(load(tmp_path, from_there, ODD=text)))
    for spec in found:
        assert (spec.dataset.source, spec.tracking.experiment) == (text, text)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_the_same_in_a_sweep_and_in_a_pipeline(text: str, tmp_path: Path) -> None:
    """Each run of a sweep is named in tables by what was varied, and must still be just that."""
    quoted = json.dumps(text, ensure_ascii=False)
    sweep = f"kind: sweep\nname: s\nmatrix: {{tracking.experiment: [{quoted}, other]}}\n"
    base = "job: {kind: train, dataset: {source: digits}, training: {num_steps: 5}}\n"
    pipeline = (
        "kind: pipeline\nname: p\nsteps:\n  a:\n    kind: train\n    training: {num_steps: 5}\n"
        f"    dataset: {{source: {quoted}}}\n"
    )
    runs = load(tmp_path, sweep + base).spec
    steps = load(tmp_path, pipeline).spec
    assert isinstance(runs, GroupJob)
    assert isinstance(steps, GroupJob)
    run, step = runs.children[0], steps.children[0]
    assert run.spec.tracking.experiment == text
    assert run.settings == {"tracking.experiment": text}
    assert isinstance(step.spec, TrainJob)
    assert step.spec.dataset.source == text


@pytest.mark.parametrize("text", TEXTS)
def test_a_registered_model_and_a_checkpoint_stay_or_are_refused(text: str, tmp_path: Path) -> None:
    """They go into MLflow's and the store's addresses."""
    for field, value in (("registered", f"{text}@best"), ("checkpoint", f"s3://b/{text}")):
        whole = json.dumps(value, ensure_ascii=False)
        file = f"kind: sample\nname: n\nmodel: {{{field}: {whole}}}\nnum_samples: 64\n"
        told = ""
        try:
            spec = load(tmp_path, file).spec
        except BadInputError as error:
            told = str(error)
        if told:
            assert "\n" not in told
            continue
        assert isinstance(spec, SampleJob)
        assert getattr(spec.model, field) == value


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_none_is_refused_in_one_line_everywhere(name: str, tmp_path: Path) -> None:
    """Names stand in keys of the store, in Ray's and MLflow's ids and on command lines."""
    quoted = json.dumps(name, ensure_ascii=False)
    steps = f"kind: pipeline\nname: p\nsteps: {{{quoted}: {{kind: train}}}}\n"
    for text, overrides in (
        (train(name=name), ()),
        (train(), (f"name={quoted}",)),
        (train(), (f"queue={quoted}",)),
        (train(), (f"tracking.registered_model={quoted}",)),
        (train(), (f"{name}=1",)),
        (steps, ()),
    ):
        with pytest.raises(BadInputError) as error:
            load(tmp_path, text, *overrides)
        assert "\n" not in str(error.value)
    with pytest.raises(BadInputError) as error:
        submit_job(MemoryStore(), load(tmp_path, train()).spec, name or "..")
    assert "\n" not in str(error.value)
    with pytest.raises(BadInputError) as error:
        set_quota(MemoryStore(), check_name("queue", name), 1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["$(touch pwned)", "a; touch pwned", "müde", "-x --help"])
@pytest.mark.parametrize("verb", ["status", "queue set"])
def test_verbs_take_odd_names_for_jobs_that_are_not_there(
    name: str, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, and nothing was started or made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DDPMCTL_STORE", raising=False)
    monkeypatch.setenv("DDPMCTL_HOME", str(tmp_path / "home"))
    ending = ["--gpus", "1"] if verb == "queue set" else []
    done = CliRunner().invoke(main, [*verb.split(), *ending, "--", name])
    assert done.exit_code == 2
    assert len(done.output.strip().splitlines()) == 1, done.output
    assert not list(tmp_path.iterdir())


def test_quotas_are_kept_under_the_name_that_was_given() -> None:
    """The good name, for comparison."""
    store = MemoryStore()
    set_quota(store, "night", 2)
    assert dict(read_quotas(store)) == {"night": 2}
