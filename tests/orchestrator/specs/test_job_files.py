"""The job files that come with the project."""

from dataclasses import replace
from pathlib import Path

import pytest

from ddpm.config import DiffusionConfig, UNetConfig
from orchestrator.artifacts.datasets.refs import resolve_source
from orchestrator.specs.files import load_submission
from orchestrator.specs.group import GroupJob
from orchestrator.specs.job import SampleJob, TrainJob
from orchestrator.specs.kinds import load_spec

JOBS = Path(__file__).resolve().parents[3] / "jobs"
FILES = sorted(JOBS.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_job_file_is_valid(path: Path) -> None:
    """They are what a newcomer submits first and copies from."""
    load_submission(path)


def test_pipeline_draws_from_its_own_training() -> None:
    """It needs nothing that was submitted before."""
    group = load_submission(JOBS / "pipeline.yaml")
    assert isinstance(group, GroupJob)
    assert [(child.step, child.model_step) for child in group.children] == [
        ("train", None),
        ("sample", "train"),
    ]


def test_demo_trains_on_a_set_that_needs_no_download() -> None:
    """`make demo` runs without a network once it is installed."""
    job = load_spec(JOBS / "train.yaml")
    assert isinstance(job, TrainJob)
    assert resolve_source(job.dataset.source, JOBS) == "digits"


@pytest.mark.parametrize(
    ("train", "sample"),
    [
        ("train.yaml", "sample.yaml"),
        ("labelled-digits.yaml", "guided-samples.yaml"),
        ("cifar10-train.yaml", "cifar10-sample-50k.yaml"),
    ],
)
def test_sample_job_draws_from_the_job_that_is_trained_beside_it(train: str, sample: str) -> None:
    """A name that fits no job would wait for ever."""
    trained, drawn = load_spec(JOBS / train), load_spec(JOBS / sample)
    assert isinstance(trained, TrainJob)
    assert isinstance(drawn, SampleJob)
    assert drawn.model.job == trained.name
    assert drawn.sampling.num_steps <= trained.diffusion.num_timesteps


def test_fine_tuning_starts_from_a_network_of_the_same_sizes() -> None:
    """Only what knows the classes is new."""
    before, after = load_spec(JOBS / "train.yaml"), load_spec(JOBS / "finetune.yaml")
    assert isinstance(before, TrainJob)
    assert isinstance(after, TrainJob)
    assert after.init is not None
    assert after.init.job == before.name
    assert replace(after.model, num_classes=0) == before.model
    assert after.diffusion == before.diffusion


def test_cifar10_setting_is_that_of_the_paper() -> None:
    """Ho et al. 2020, section 4 and appendix B: a run is compared with their figures."""
    job = load_spec(JOBS / "cifar10-train.yaml")
    assert isinstance(job, TrainJob)
    assert job.model == UNetConfig()
    assert job.diffusion == DiffusionConfig()
    training = job.training
    assert (training.num_steps, training.global_batch_size) == (800_000, 128)
    assert (training.optimizer, training.learning_rate) == ("adam", 2e-4)
    assert (training.lr_warmup_steps, training.grad_clip_norm) == (5000, 1.0)
    assert (training.ema_decay, training.ema_warmup) == (0.9999, False)
    assert training.horizontal_flip
    assert job.dataset.holdout_fraction == 0


def test_cifar10_set_is_the_one_that_fid_is_computed_of() -> None:
    """Published figures are of 50,000 images and the whole chain."""
    job = load_spec(JOBS / "cifar10-sample-50k.yaml")
    assert isinstance(job, SampleJob)
    assert job.num_samples == 50_000
    assert (job.sampling.method, job.sampling.num_steps) == ("ddpm", 1000)
