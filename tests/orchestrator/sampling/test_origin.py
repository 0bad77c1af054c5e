"""A sample run in MLflow names what its images come from."""

from dataclasses import replace

from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.sampling.origin import tell_origin
from orchestrator.store.keys import JobPaths
from orchestrator.tracking.lines import DatasetLine, TagsLine, decode_lines, segments
from orchestrator.tracking.writer import MetricWriter
from tests.support.fakes import MemoryStore
from tests.support.models import model_of
from tests.support.world import train_job

MODEL = model_of("digits-1", 1000, commit_sha256="ab" * 32)


def lines_of(store: MemoryStore, model: ResolvedModel) -> tuple[dict[str, str], list[DatasetLine]]:
    """Return the tags and the data sets that a set of a model is told with."""
    paths = JobPaths("drawn-1").attempt(1)
    with MetricWriter(store, paths) as metrics:
        tell_origin(store, model, metrics)
    lines = [line for _, body in segments(store, paths).bodies() for line in decode_lines(body)[0]]
    tags = {k: v for line in lines if isinstance(line, TagsLine) for k, v in line.values.items()}
    return tags, [line for line in lines if isinstance(line, DatasetLine)]


def test_a_set_names_model_checkpoint_code_and_the_data_of_the_model() -> None:
    """Two sets of different pictures are told apart without opening either job file."""
    store = MemoryStore()
    spec = train_job("digits")
    images = spec.dataset.model_copy(update={"sha256": "cd" * 32})
    spec = spec.model_copy(update={"dataset": images})
    store.put(JobPaths("digits-1").spec, spec.model_dump_json().encode())
    tags, datasets = lines_of(store, MODEL)
    assert tags["ddpmctl.model"] == "step 1000 of digits-1, ema"
    assert tags["ddpmctl.commit"] == f"{store.uri}/{MODEL.commit_key}"
    assert tags["ddpmctl.commit_sha256"] == "ab" * 32
    assert len(tags["ddpmctl.code_sha256"]) >= 12
    (dataset,) = datasets
    assert (dataset.name, dataset.digest, dataset.source) == ("digits", "cd" * 32, "digits")


def test_a_model_of_elsewhere_or_one_that_is_gone_has_no_data_to_name() -> None:
    """A set is no worse for that, and its run is told all the same."""
    elsewhere = replace(MODEL, store_uri="s3://other/prefix")
    tags, datasets = lines_of(MemoryStore(), elsewhere)
    assert tags["ddpmctl.commit"].startswith("s3://other/prefix/jobs/")
    assert datasets == []
    assert lines_of(MemoryStore(), MODEL)[1] == []
