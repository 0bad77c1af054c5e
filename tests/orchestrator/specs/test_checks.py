"""What is known at submit is told at submit: of single jobs, pipelines, sweeps and overrides."""

from pathlib import Path

import pytest

from orchestrator.errors import BadInputError
from orchestrator.specs.files import JobFile, load_job_file
from orchestrator.specs.image_checks import ImagesSeen, remarks_on_images
from orchestrator.specs.train import TrainJob

TRAIN = """\
kind: train
name: t
dataset: {source: digits}
training:
  num_steps: 100
evaluation: {num_images: 0}
"""
SAMPLE = """\
kind: sample
name: s
model: {job: t}
num_samples: 8
shard_size: 8
sampling: {microbatch_size: 8}
"""
DIGITS = ImagesSeen(1797, (1, 8, 8))


def load(folder: Path, text: str, *overrides: str) -> JobFile:
    """Check a job file's text."""
    file = folder / "job.yaml"
    file.write_text(text)
    return load_job_file(file, overrides)


def looked_at(folder: Path, text: str, seen: ImagesSeen = DIGITS, *overrides: str) -> JobFile:
    """Check a job file's text against images."""

    def look(_: str, job: object, gives: object) -> object:
        assert isinstance(job, TrainJob)
        return remarks_on_images(job, seen, gives)  # type: ignore[arg-type]

    return load(folder, text, *overrides).checked(look)  # type: ignore[arg-type]


WRONG = [
    (SAMPLE, "job: t", "job: T1", ":3: model.job 'T1' is not usable"),
    (SAMPLE, "job: t", "checkpoint: ./here", ":3: model.checkpoint './here' must be the s3:// URI"),
    (SAMPLE, "job: t", "checkpoint: s3://b/x/jobs/t/checkpoints/step-a.json", "must be the s3://"),
    (SAMPLE, "job: t", "registered: digits", ":3: model.registered 'digits' must be name@alias"),
    (SAMPLE, "job: t", "registered: models:/t1/1", "write 'models:/t1/1' as t1/1"),
    (SAMPLE, "job: t", 'registered: "models:/t1@prod"', "write 'models:/t1@prod' as t1@prod"),
    (SAMPLE, "job: t", "registered: t1/99999999999999999999", "there can be no version 9999"),
    (SAMPLE, "microbatch_size: 8", "microbatch_size: 8, num_steps: 1e23", "1,000,000 at most"),
    (TRAIN, "num_steps: 100", "num_steps: 1e23", ":5: training.num_steps must be 999,999,999"),
    (TRAIN, "evaluation:", "tracking: {sample_steps: 1001}\nevaluation:",
     ":6: tracking.sample_steps (1001) is above diffusion.num_timesteps (1000)"),
    (TRAIN, "{num_images: 0}", "{num_timesteps: 2000}",
     ":6: evaluation.num_timesteps (2000) is above diffusion.num_timesteps (1000)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "right", "wrong", "told"), WRONG)
def test_what_cannot_work_is_refused_with_its_line(
    tmp_path: Path, text: str, right: str, wrong: str, told: str
) -> None:
    """A night of waiting must not end in what the file said in the evening."""
    assert right in text
    with pytest.raises(BadInputError) as caught:
        load(tmp_path, text.replace(right, wrong))
    assert told in str(caught.value)


ODD = [
    (TRAIN, "num_steps: 100", "num_steps: 100\n  lr_warmup_steps: 500",
     ":6: training.lr_warmup_steps (500) is longer than the run"),
    (TRAIN, "num_steps: 100", "num_steps: 100\n  learning_rate: 1e3",
     ":6: training.learning_rate is 1000"),
    (TRAIN, "training:", "model: {channels: 16, attention_resolutions: []}\ntraining:",
     ":4: model.channels (16) times channel_multipliers is 32 at most"),
    (TRAIN, "training:", "diffusion: {num_timesteps: 30}\ntraining:",
     ":4: tracking.sample_steps (50) is above diffusion.num_timesteps (30): 30 are taken"),
    (SAMPLE, "microbatch_size: 8", "microbatch_size: 8, trajectory: 9",
     ":6: sampling.trajectory (9) is above num_samples: 8 are taken"),
    (SAMPLE, "num_samples: 8", "num_samples: 8\nresources: {num_workers: 4}",
     ":5: resources.num_workers (4) is above the number of shards (1)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "right", "odd", "told"), ODD)
def test_what_is_odd_is_told_and_goes_on(
    tmp_path: Path, text: str, right: str, odd: str, told: str
) -> None:
    """Nothing is clamped without a word."""
    assert right in text
    (warning,) = load(tmp_path, text.replace(right, odd)).warnings
    assert told in warning


def test_usual_files_are_not_warned_of(tmp_path: Path) -> None:
    """Warnings that always stand there are read by nobody."""
    attention = TRAIN.replace("training:", "model: {attention_resolutions: [4]}\ntraining:")
    assert looked_at(tmp_path, attention).warnings == ()
    assert load(tmp_path, SAMPLE).warnings == ()


def test_images_that_do_not_suit_a_training_are_refused(tmp_path: Path) -> None:
    """A hold-out of everything, and attention at heights that no level has."""
    with pytest.raises(BadInputError, match=r":3: dataset\.holdout_fraction \(0\.6\) holds out al"):
        looked_at(tmp_path, TRAIN.replace("digits}", "digits, holdout_fraction: 0.6}"),
                  ImagesSeen(1, (1, 8, 8)))  # fmt: skip
    with pytest.raises(BadInputError, match=r":4: model.* no level has the height 16; .*: 8|8, 4"):
        looked_at(tmp_path, TRAIN.replace("training:", "model: {attention_resolutions: [16]}\n"
                                          "training:"))  # fmt: skip


def test_images_that_suit_a_training_oddly_are_told(tmp_path: Path) -> None:
    """Each with the numbers that matter."""
    few = ImagesSeen(40, (1, 32, 32))
    odd = looked_at(tmp_path, TRAIN.replace("num_images: 0", "num_images: 9"), few).warnings
    assert len(odd) == 2
    assert "training.global_batch_size (128) is above the 38 images to train on" in odd[0]
    assert ":6: evaluation.num_images (9) is above the 2 images held out: 2 are used" in odd[1]
    default = looked_at(tmp_path, TRAIN).warnings
    assert "no level has the height 16" in default[0]


def test_each_run_of_a_sweep_each_step_and_each_override_is_looked_at(tmp_path: Path) -> None:
    """The message names the run, the step's line, or the option that was typed."""
    inner = "".join(f"  {line}\n" for line in TRAIN.splitlines() if not line.startswith("name"))
    sweep = f"kind: sweep\nname: s\nmatrix:\n  tracking.sample_steps: [5, 5000]\njob:\n{inner}"
    with pytest.raises(BadInputError, match=r":4: tracking\.sample_steps \(5000\).*\(run 002: "):
        load(tmp_path, sweep)
    steps = "".join(f"  {line}\n" for line in inner.splitlines())
    pipeline = f"kind: pipeline\nname: p\nsteps:\n  one:\n{steps}"
    with pytest.raises(BadInputError, match=r":8: training\.num_steps must be"):
        load(tmp_path, pipeline.replace("num_steps: 100", "num_steps: 1e12"))
    with pytest.raises(BadInputError, match=r"--set 'training\.num_steps=1e12': training"):
        load(tmp_path, TRAIN, "training.num_steps=1e12")


ON_THE_WAY = TRAIN.replace(
    "{num_images: 0}", "{num_images: 0, metrics: {every_steps: 50, num_samples: 100}}"
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            ON_THE_WAY,
            "metrics.every_steps (50) must be a multiple of checkpoints.every_steps (500)",
        ),
        (
            TRAIN + "checkpoints: {keep_best: kid}\n",
            "checkpoints.keep_best needs evaluation.metrics",
        ),
        (
            ON_THE_WAY.replace("num_steps: 100", "num_steps: 200000")
            + "checkpoints: {every_steps: 50}\n",
            "makes 4,000 evaluations; 1,000 at most",
        ),
        (
            ON_THE_WAY.replace("num_samples: 100", "num_samples: 100, steps: 2000")
            + "checkpoints: {every_steps: 50}\n",
            "evaluation.metrics.steps (2000) is above diffusion.num_timesteps (1000)",
        ),
    ],
)
def test_evaluations_on_the_way_that_cannot_be_are_refused(
    tmp_path: Path, text: str, told: str
) -> None:
    """Else they would never come, or come one by one for days."""
    with pytest.raises(BadInputError) as error:
        load(tmp_path, text)
    assert told in str(error.value)


def test_what_evaluations_on_the_way_will_lack_is_told(tmp_path: Path) -> None:
    """Room beside a training that takes all CPUs, images to compare with, and 8 bits."""
    text = ON_THE_WAY + "checkpoints: {every_steps: 50}\nresources: {gpus_per_worker: 0}\n"
    (told,) = load(tmp_path, text).warnings
    assert "cpus_per_worker auto" in told
    few = looked_at(tmp_path, text, ImagesSeen(150, (1, 8, 8)))
    assert any("are few to compare with" in warning for warning in few.warnings)
    large = looked_at(tmp_path, text, ImagesSeen(9000, (3, 64, 64)))
    assert any("12,288 raw pixels" in warning for warning in large.warnings)
    with pytest.raises(BadInputError, match="hold float32"):
        looked_at(tmp_path, text, ImagesSeen(9000, (3, 8, 8), 0, "float32", (0.0, 1.0)))
