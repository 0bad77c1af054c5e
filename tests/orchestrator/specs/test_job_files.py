"""The job files that come with the project."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ddpm.config import ONE_STEP, DiffusionConfig, UNetConfig
from orchestrator.artifacts.datasets.refs import resolve_source
from orchestrator.errors import BadInputError
from orchestrator.specs.evaluate import EvaluateJob
from orchestrator.specs.files import load_job_file, load_submission
from orchestrator.specs.group import GroupJob
from orchestrator.specs.kinds import load_spec, stored_job
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.train import TrainJob

JOBS = Path(__file__).resolve().parents[3] / "jobs"
FILES = sorted(JOBS.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_job_file_is_valid(path: Path) -> None:
    """They are what a newcomer submits first and copies from, so nothing of them is odd."""
    assert load_job_file(path).warnings == ()


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


VAE = """
kind: train
name: vae
dataset: {source: digits}
model: {family: vae, channels: 16, channel_multipliers: [1, 2]}
training: {num_steps: 10}
"""


def test_a_family_that_draws_in_one_step_has_its_diffusion_filled_in(tmp_path: Path) -> None:
    """So that whoever asks for the model's timesteps is told one, of the stored spec too."""
    path = tmp_path / "vae.yaml"
    path.write_text(VAE)
    job = load_spec(path)
    assert isinstance(job, TrainJob)
    assert job.diffusion == ONE_STEP
    assert stored_job(job.model_dump(mode="json")) == job


def test_a_chain_of_one_step_is_no_ddpm(tmp_path: Path) -> None:
    """Its one beta is the clipped one: nothing is left of the image, and nothing to learn."""
    path = tmp_path / "one.yaml"
    one_step = "diffusion: {num_timesteps: 1, betas: cosine, prediction: x_start}\n"
    path.write_text(VAE.replace("family: vae, channels: 16", "channels: 32") + one_step)
    with pytest.raises(BadInputError, match="num_timesteps must be at least 2 with model"):
        load_spec(path)


@pytest.mark.parametrize(
    ("written", "line", "told"),
    [
        ("diffusion: {num_timesteps: 100}", 7, "diffusion must be left out"),
        ("training: {num_steps: 10, precision: bf16}", 6, "precision must be left out"),
        ("model: {family: gan, dropout: 0.0}", 5, "dropout must be left out with family gan"),
        ("model: {family: vea}", 5, "did you mean vae"),
    ],
)
def test_what_a_family_does_not_read_is_refused_where_it_stands(
    tmp_path: Path, written: str, line: int, told: str
) -> None:
    """A field without effect would be believed to have one."""
    key = written.partition(":")[0]
    kept = [one for one in VAE.splitlines() if not one.startswith(f"{key}:")]
    lines = [*kept[: line - 1], written, *kept[line - 1 :]]
    path = tmp_path / "job.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(BadInputError, match=rf"job.yaml:{line}: .*{told}"):
        load_spec(path)


STEPS_OF = {  # by family and method
    ("ddpm", "ddpm"): [1000, 100, 10],
    ("ddpm", "ddim"): [100, 50, 20, 10],
    ("ddpm", "dpm++2m"): [100, 50, 20, 10],
    ("vae", ""): [1],
    ("gan", ""): [1],
}


@pytest.mark.parametrize("name", ["trilemma.yaml", "trilemma-fashion.yaml"])
def test_the_trilemma_compares_like_with_like(name: str) -> None:
    """Three seeds of each of three families, and every set drawn is evaluated."""
    group = load_submission(JOBS / name)
    assert isinstance(group, GroupJob)
    jobs = [child.spec for child in group.children]
    trained = [job for job in jobs if isinstance(job, TrainJob)]
    assert sorted((job.model.family, job.training.seed) for job in trained) == [
        (family, seed) for family in ("ddpm", "gan", "vae") for seed in (0, 1, 2)
    ]
    families = {c.step: c.spec.model.family for c in group.children if isinstance(c.spec, TrainJob)}
    steps: dict[tuple[str, str, int], list[int]] = {}
    drawn = {child.step: child for child in group.children if isinstance(child.spec, SampleJob)}
    for child in drawn.values():
        assert isinstance(child.spec, SampleJob)
        assert child.model_step is not None
        sampling, family = child.spec.sampling, families[child.model_step]
        assert child.model_step.endswith(f"-s{sampling.seed}")
        method = sampling.method if family == "ddpm" else ""
        steps.setdefault((family, method, sampling.seed), []).append(sampling.num_steps)
    assert steps == {(*of, seed): n for of, n in STEPS_OF.items() for seed in (0, 1, 2)}
    evaluations = [job for job in jobs if isinstance(job, EvaluateJob)]
    assert {job.of.job for job in evaluations} == set(drawn)
    seen = {json.dumps(j.dataset.model_dump(), default=str) for j in evaluations if j.dataset}
    assert seen == {json.dumps(job.dataset.model_dump(), default=str) for job in trained}
