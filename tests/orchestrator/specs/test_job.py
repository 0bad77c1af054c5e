"""Job files as people write them, and as they get them wrong."""

from pathlib import Path

import pytest

from ddpm.config import UNetConfig
from orchestrator.errors import BadInputError
from orchestrator.lifecycle.retry import RetryBudget
from orchestrator.specs.kinds import load_spec, stored_job
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from orchestrator.specs.train import TrainJob

GOOD = """\
kind: train
name: digits
dataset: {source: digits}
model: {channels: 64, channel_multipliers: [1, 2, 2]}
training:
  num_steps: 2000
  learning_rate: 2e-4
  precision: bf16
resources: {num_workers: 1, gpus_per_worker: auto}
"""
SAMPLE = """\
kind: sample
name: s
model: {job: digits}
num_samples: 10
sampling: {microbatch_size: 8}
shard_size: 16
resources: {num_workers: 3}
"""


def load(folder: Path, text: str, *overrides: str) -> TrainJob | SampleJob:
    """Load a job file's text."""
    file = folder / "job.yaml"
    file.write_text(text)
    spec = load_spec(file, overrides)
    assert isinstance(spec, TrainJob | SampleJob)
    return spec


def test_numbers_of_yaml_1_2_are_numbers(tmp_path: Path) -> None:
    """YAML 1.1 reads 2e-4 as a string."""
    job = load(tmp_path, GOOD)
    assert isinstance(job, TrainJob)
    assert job.training.learning_rate == 2e-4


def test_a_number_of_workers_is_a_range_of_one(tmp_path: Path) -> None:
    """Most fleets have one size."""
    job = load(tmp_path, SAMPLE)
    assert isinstance(job, SampleJob)
    assert (job.num_workers.min, job.num_workers.max) == (3, 3)


def test_half_a_retry_budget_keeps_the_rest_of_its_causes_own(tmp_path: Path) -> None:
    """Another back-off must not take the patience for a lost cluster from 10 retries to 5."""
    job = load(tmp_path, GOOD + "retry: {cluster_lost: {backoff_s: 1}, avoid_node_after: 2}\n")
    assert job.retry.cluster_lost == RetryBudget(max_retries=10, backoff_s=1)
    assert job.retry.worker_lost == RetryBudget()
    assert job.retry.avoid_node_after == 2
    with pytest.raises(BadInputError, match=r":10: .*backof_s"):
        load(tmp_path, GOOD + "retry: {cluster_lost: {backof_s: 1}}\n")


WRONG = [
    ("num_steps", "num_step", ":6: unknown key training.num_step; did you mean num_steps?"),
    ("2e-4", "-1", ":7: training.learning_rate must be greater than 0, not -1.0"),
    ("2000", '"2000"', ":6: training.num_steps must be a whole number, not the text '2000': take"),
    ("2000", "1.5", ":6: training.num_steps must be a whole number, not 1.5"),
    ("2000", "true", ":6: training.num_steps must be a whole number, not true"),
    ("bf16", "fp8", ":8: training.precision must be 'auto', 'bf16' or 'float32', not 'fp8'"),
    (
        "worker: auto",
        "worker: x",
        ":9: resources.gpus_per_worker must be a number or 'auto', not 'x'",
    ),
    ("name: digits", "name: My_Job", ":2: name must be of a-z, 0-9 and single hyphens"),
    ("num_workers: 1", "num_workers: 3", "global_batch_size (128) must be a multiple of"),
    (
        "  precision: bf16",
        "  microbatch_size: 48",
        ":8: training.microbatch_size must be a divisor of 128, a worker's share of the batch",
    ),
    ("2e-4", ".inf", ":7: training.learning_rate must be a finite number, not inf"),
    (
        "kind: train",
        "kind: trian",
        ":1: kind must be train, sample, evaluate, likelihood or prepare, not 'trian'",
    ),
    ("  num_steps: 2000\n", "", ":5: key training.num_steps is missing"),
    ("name: digits", "name: digits\nname: two", ":3: key 'name' is given twice"),
    ("channels: 64", "channels: !!python/name:os.system 1", ":4: tag "),
    ("[1, 2, 2]", "[1, 2", ": no valid YAML"),
    ("channels: 64", "channels: 63", ":4: model.channels must be even, not 63"),
    (
        "  precision: bf16",
        "  precision: bf16\ndiffusion: {prediction: mean}",
        ":8: training.precision must be float32 (or auto) with prediction mean",
    ),
]


@pytest.mark.parametrize(
    ("shard_size", "microbatch_size"), [(16, 16), (200, 100), (31, 31), (1024, 128), (128, 128)]
)
def test_a_microbatch_that_nobody_wrote_fits_the_shard(
    tmp_path: Path, shard_size: int, microbatch_size: int
) -> None:
    """The default refused small shards; where it fits it stays, since it is part of the bits."""
    text = SAMPLE.replace("shard_size: 16", f"shard_size: {shard_size}")
    for sampling in ("sampling: {num_steps: 50, labels: [0, 1]}", ""):
        spec = load(tmp_path, text.replace("sampling: {microbatch_size: 8}", sampling))
        assert isinstance(spec, SampleJob)
        assert spec.sampling.microbatch_size == microbatch_size


def test_a_job_made_in_python_is_completed_as_one_of_a_file() -> None:
    """It was refused there, and came through from a file."""
    spec = SampleJob(
        kind="sample", name="few", model=ModelRef(job="a"), num_samples=16, shard_size=16
    )
    assert spec.sampling.microbatch_size == 16
    assert stored_job(spec.model_dump(mode="json")) == spec


def test_a_shard_that_only_tiny_microbatches_fit_is_refused(tmp_path: Path) -> None:
    """Drawn image by image, 131 of them take a hundred times as long as 128."""
    text = SAMPLE.replace("shard_size: 16", "shard_size: 131")
    with pytest.raises(BadInputError, match=r"shard_size \(131\) must be a multiple of"):
        load(tmp_path, text.replace("sampling: {microbatch_size: 8}", ""))


@pytest.mark.parametrize(("right", "wrong", "message"), WRONG)
def test_a_mistake_is_one_line_that_names_the_place(
    tmp_path: Path, right: str, wrong: str, message: str
) -> None:
    """The reader must find the line without a traceback."""
    with pytest.raises(BadInputError) as caught:
        load(tmp_path, GOOD.replace(right, wrong))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("shard_size: 16", "shard_size: 12", "must be a multiple of sampling.microbatch_size (8)"),
        ("num_samples: 10", "num_samples: 0", ":4: num_samples must be 1 or more, not 0"),
        (
            "{job: digits}",
            "{}",
            ":3: exactly one of job, registered, checkpoint and diffusers",
        ),
        (
            "{job: digits}",
            "{registered: digits@prod, step: 9}",
            ":3: model.step goes with model.job",
        ),
        ("num_workers: 3", "num_workers: {min: 4, max: 2}", ":7: resources.num_workers: max (2)"),
    ],
)
def test_a_sample_job_that_cannot_be_is_refused(
    tmp_path: Path, right: str, wrong: str, message: str
) -> None:
    """Better in a second than after the training."""
    with pytest.raises(BadInputError) as caught:
        load(tmp_path, SAMPLE.replace(right, wrong))
    assert message in str(caught.value)


def test_an_override_is_checked_and_named(tmp_path: Path) -> None:
    """The line of the file would point at the wrong place."""
    job = load(tmp_path, GOOD, "training.num_steps=50", "priority=7")
    assert isinstance(job, TrainJob)
    assert (job.training.num_steps, job.priority) == (50, 7)
    with pytest.raises(BadInputError, match=r"--set 'training\.num_steps=0'"):
        load(tmp_path, GOOD, "training.num_steps=0")
    with pytest.raises(BadInputError, match=r"write it as key\.key=value"):
        load(tmp_path, GOOD, "training.num_steps")


def test_a_missing_file_a_folder_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    """None of them may end in a traceback."""
    with pytest.raises(BadInputError, match="no such file"):
        load_spec(tmp_path / "none.yaml")
    with pytest.raises(BadInputError, match="cannot be read"):
        load_spec(tmp_path)
    huge = tmp_path / "huge.yaml"
    huge.write_text("# " + "x" * 300_000)
    with pytest.raises(BadInputError, match="a job file has"):
        load_spec(huge)


def test_aliases_that_unfold_without_end_are_refused(tmp_path: Path) -> None:
    """Ten lines can stand for a billion values."""
    bomb = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{new}: &{new} [{','.join(f'*{old}' for _ in range(10))}]\n"
        for old, new in zip("abcdef", "bcdefg", strict=True)
    )
    with pytest.raises(BadInputError, match="not a job file"):
        load(tmp_path, bomb)


def test_a_stored_spec_reads_as_what_was_submitted(tmp_path: Path) -> None:
    """A retry in a year must do what was asked today."""
    for text in (GOOD, SAMPLE):
        job = load(tmp_path, text)
        again = stored_job(job.model_dump(mode="json"))
        assert again == job
        assert again.spec_hash == job.spec_hash


@pytest.mark.parametrize(
    ("asks", "told"),
    [
        ("{accelerator: H100, gpus_per_worker: 0}", "accelerator names a type of GPU, and"),
        ("{accelerator: []}", "accelerator names no type"),
        ("{accelerator: 'H 100'}", "accelerator"),
        ("{labels: {zone: 'a b'}}", "'a b' is no label's value"),
        ("{labels: {'_x': a}}", "'_x' is no label's key"),
        ("{memory_gb: 0}", "memory_gb"),
    ],
)
def test_wishes_for_nodes_that_none_can_meet_are_refused(
    tmp_path: Path, asks: str, told: str
) -> None:
    """Such a job would wait for ever, or Ray would refuse it long after `submit`."""
    text = GOOD.replace("{num_workers: 1, gpus_per_worker: auto}", asks)
    with pytest.raises(BadInputError, match=r"job\.yaml:9") as error:
        load(tmp_path, text)
    assert told in str(error.value)


def test_one_type_or_several_may_be_asked_for(tmp_path: Path) -> None:
    """The usual wish is one word."""
    for asks, types in (("H100", ("H100",)), ("[H100, A100]", ("H100", "A100"))):
        text = GOOD.replace("gpus_per_worker: auto", f"accelerator: {asks}")
        job = load(tmp_path, text)
        assert job.resources.accelerators == types


def test_gpu_hours_of_a_job_without_gpus_are_refused(tmp_path: Path) -> None:
    """A limit that can never be met holds nothing, and whoever set it believes that it does."""
    text = GOOD.replace("gpus_per_worker: auto", "gpus_per_worker: 0") + "max_gpu_hours: 2\n"
    with pytest.raises(BadInputError, match="max_gpu_hours limits GPUs"):
        load(tmp_path, text)


def test_augmentation_that_the_network_is_not_told_of_is_refused(tmp_path: Path) -> None:
    """It would be drawn, which no loss and no curve says."""
    text = GOOD.replace("training:\n", "training:\n  augment: 0.12\n")
    with pytest.raises(BadInputError, match=r"training\.augment needs model\.augmentation: true"):
        load(tmp_path, text)
    told = text.replace("model: {", "model: {augmentation: true, ")
    model = load(tmp_path, told).model
    assert isinstance(model, UNetConfig)
    assert model.augmentation
