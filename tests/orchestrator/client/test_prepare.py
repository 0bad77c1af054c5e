"""What the store and the cluster tell of a job file before it is queued."""

import queue
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from ddpm.config import SamplingConfig
from orchestrator.artifacts.checkpoints.resolve import resolve_model
from orchestrator.client import registered
from orchestrator.client.model_checks import remarks_on_model, remarks_on_room
from orchestrator.client.prepare import check_sources, prepared
from orchestrator.client.submit import submit_job
from orchestrator.errors import BadInputError
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobState
from orchestrator.specs.files import JobFile, load_job_file
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.sections import ModelRef
from orchestrator.specs.train import TrainJob
from orchestrator.store.keys import JobPaths
from tests.support.fakes import MemoryStore
from tests.support.foreign_models import write_small_folder

TRAIN = """\
kind: train
name: t
dataset:
  source: set.npy
  holdout_fraction: 0.5
model:
  channels: 64
  channel_multipliers: [1, 1]
  attention_resolutions: [4]
diffusion: {num_timesteps: 100}
training: {num_steps: 10, global_batch_size: 2}
evaluation: {num_images: 0}
"""
SAMPLE = """\
kind: sample
name: s
model: {job: t}
num_samples: 8
shard_size: 8
sampling: {microbatch_size: 8, num_steps: 100}
"""


def load(folder: Path, text: str, *overrides: str) -> JobFile:
    """Check a job file's text that lies beside eight images."""
    np.save(folder / "set.npy", np.arange(8 * 64, dtype=np.uint8).reshape(8, 8, 8, 1))
    file = folder / "job.yaml"
    file.write_text(text)
    return load_job_file(file, overrides)


def told(folder: Path, store: MemoryStore, text: str, *overrides: str) -> str:
    """Return why a job file is refused."""
    with pytest.raises(BadInputError) as caught:
        prepared(load(folder, text, *overrides), folder, store)
    return str(caught.value).removeprefix(str(folder))


def with_training(folder: Path, steps: tuple[int, ...] = ()) -> MemoryStore:
    """Return a store with a training `t`; with checkpoints, it has ended."""
    store = MemoryStore()
    submit_job(store, prepared(load(folder, TRAIN), folder, store).spec, "t")
    if steps:
        records = RecordStore(store)
        current = records.read("t")
        now = datetime.now(UTC)
        starting = current.record.moved_to(JobState.STARTING, at=now)
        running = starting.moved_to(JobState.RUNNING, at=now)
        records.write(current, running.moved_to(JobState.SUCCEEDED, at=now))
    for step in steps:
        store.put(JobPaths("t").checkpoint(step), b"{}")
    return store


def test_a_hold_out_that_leaves_nothing_names_its_line(tmp_path: Path) -> None:
    """It was a division by zero, or a job that failed a minute later."""
    text = TRAIN.replace("0.5", "0.96")
    assert told(tmp_path, MemoryStore(), text).startswith("/job.yaml:5: dataset.holdout_fraction")
    typed = told(tmp_path, MemoryStore(), TRAIN, "dataset.holdout_fraction=0.96")
    assert typed.startswith("--set 'dataset.holdout_fraction=0.96': dataset.holdout_fraction")


def test_a_size_that_levels_do_not_divide_names_the_line_of_the_levels(tmp_path: Path) -> None:
    """The images are what they are; the levels can be changed."""
    message = told(tmp_path, MemoryStore(), TRAIN.replace("[1, 1]", "[1, 1, 1, 1, 1]"))
    assert message.startswith("/job.yaml:8: image size must be divisible by 16")


def test_attention_that_no_level_has_names_the_levels(tmp_path: Path) -> None:
    """The author of the file meant something else."""
    message = told(tmp_path, MemoryStore(), TRAIN.replace("[4]", "[16, 4]"))
    assert message.startswith(
        "/job.yaml:9: model.attention_resolutions: no level has the height 16"
    )
    assert message.endswith("8, 4")


def test_each_run_of_a_sweep_is_looked_at_with_its_images(tmp_path: Path) -> None:
    """The message names the value in the matrix, and the run."""
    lines = [line for line in TRAIN.splitlines() if not line.startswith("name")]
    inner = "\n".join(f"  {line}" for line in lines)
    sweep = f"kind: sweep\nname: s\nmatrix:\n  dataset.holdout_fraction: [0.5, 0.96]\njob:\n{inner}"
    message = told(tmp_path, MemoryStore(), sweep)
    assert message.startswith("/job.yaml:4: dataset.holdout_fraction (0.96)")
    assert message.endswith("(run 002: dataset.holdout_fraction=0.96)")


def test_a_model_that_nobody_trains_is_told(tmp_path: Path) -> None:
    """Hours later the orchestrator would say the same."""
    store = with_training(tmp_path)
    assert "/job.yaml:3: model.job: there is no job tt" in told(
        tmp_path, store, SAMPLE.replace("job: t", "job: tt")
    )
    assert prepared(load(tmp_path, SAMPLE), tmp_path, store).warnings == ()


def test_more_steps_than_the_models_timesteps_are_refused(tmp_path: Path) -> None:
    """Whether it is finished or not: its spec says how many there are."""
    for store in (with_training(tmp_path), with_training(tmp_path, (10,))):
        message = told(tmp_path, store, SAMPLE.replace("num_steps: 100", "num_steps: 101"))
        assert message.startswith("/job.yaml:6: sampling.num_steps is 101, but the model of t has")
        uri = f"{store.uri}/jobs/t/checkpoints/step-000000010.json"
        (remark,) = remarks_on_model(store, ModelRef(checkpoint=uri), SamplingConfig(num_steps=101))
        assert remark.is_fatal
        assert "timesteps; ask for 100 at most" in remark.message


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "labels: {cat: 8}",
            "sampling.labels must be one of the model's classes (0, 1), not 'cat'",
        ),
        ("labels: [0, 2]", "sampling.labels must be one of the model's classes (0, 1), not 2"),
    ],
)
def test_a_class_that_the_model_does_not_know_is_refused(
    tmp_path: Path, asked: str, message: str
) -> None:
    """The training's data set tells them before there is a checkpoint."""
    images = np.arange(8 * 64, dtype=np.uint8).reshape(8, 8, 8, 1)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(8) % 2)
    text = TRAIN.replace("set.npy", "set.npz").replace(
        "  channels: 64", "  num_classes: auto\n  channels: 64"
    )
    store = MemoryStore()
    submit_job(store, prepared(load(tmp_path, text), tmp_path, store).spec, "t")
    sample = SAMPLE.replace("num_steps: 100", f"num_steps: 100, {asked}")
    assert told(tmp_path, store, sample) == f"/job.yaml:6: {message}"
    known = SAMPLE.replace("num_steps: 100", "num_steps: 100, labels: {1: 8}, guidance_scale: 2.0")
    assert prepared(load(tmp_path, known), tmp_path, store).warnings == ()


def test_guidance_of_a_model_without_classes_is_refused(tmp_path: Path) -> None:
    """There is no second branch to guide by."""
    text = SAMPLE.replace("num_steps: 100", "num_steps: 100, guidance_scale: 2.0")
    assert told(tmp_path, with_training(tmp_path), text) == (
        "/job.yaml:6: sampling.guidance_scale must be left out: the model knows no classes, not 2.0"
    )


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("{job: tt}", "/job.yaml:3: init.job: there is no job tt; did you mean t?"),
        ("{job: t, step: 11}", "/job.yaml:3: init.step: job t ends at step 10, before 11"),
        ("{job: t, registered: a/1}", "/job.yaml:3: exactly one of job, registered, checkpoint"),
        ("{diffusers: gone}", "/job.yaml:3: init.diffusers: "),
        ("{registered: a/1, step: 2}", "/job.yaml:3: init.step goes with init.job"),
        ("{checkpoint: x}", "/job.yaml:3: init.checkpoint 'x' must be the s3:// URI"),
    ],
)
def test_a_training_that_starts_from_what_is_not_there_is_refused(
    tmp_path: Path, init: str, message: str
) -> None:
    """It would wait for ever, or fail hours later."""
    store = with_training(tmp_path)
    text = TRAIN.replace("name: t\n", f"name: u\ninit: {init}\n")
    with pytest.raises(BadInputError) as caught:
        prepared(load(tmp_path, text), tmp_path, store)
    assert str(caught.value).removeprefix(str(tmp_path)).startswith(message)
    good = load(tmp_path, TRAIN.replace("name: t\n", "name: u\ninit: {job: t}\n"))
    assert prepared(good, tmp_path, store).warnings == ()


def test_a_step_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    """Of a training that has ended; of one that runs, a step behind its last."""
    ended = with_training(tmp_path, (5, 10))
    text = SAMPLE.replace("job: t", "job: t, step: 7")
    assert "/job.yaml:3: model: job t has no checkpoint at step 7; it has: 5, 10" in told(
        tmp_path, ended, text
    )
    prepared(load(tmp_path, text.replace("step: 7", "step: 5")), tmp_path, ended)
    runs = with_training(tmp_path)
    assert "ends at step 10, before 11" in told(tmp_path, runs, text.replace("step: 7", "step: 11"))


def test_a_sample_job_is_no_model(tmp_path: Path) -> None:
    """A name may be mistaken for another."""
    store = with_training(tmp_path)
    submit_job(store, load(tmp_path, SAMPLE).spec, "s")
    assert "s is a sample job, not a training" in told(
        tmp_path, store, SAMPLE.replace("job: t", "job: s")
    )


def test_workers_that_no_node_can_hold_are_told(tmp_path: Path) -> None:
    """A warning only: a node may be on its way."""
    text = f"{TRAIN}resources: {{num_workers: 2, gpus_per_worker: 4}}\n"
    spec = load(tmp_path, text).spec
    assert isinstance(spec, TrainJob)
    for nodes, number in (((8.0, 0.0), 0), ((4.0, 4.0), 0), ((4.0, 3.0), 1), ((), 0)):
        found = list(remarks_on_room(nodes, spec, lambda _: True))
        assert len(found) == number
        assert not any(remark.is_fatal for remark in found)


def test_a_variable_of_a_shell_in_a_path_is_explained(tmp_path: Path) -> None:
    """A job file is no shell script."""
    file = load(tmp_path, TRAIN.replace("set.npy", "$DATA/set.npy"))
    with pytest.raises(BadInputError, match=r"\$DATA is not filled in: write \$\{DATA\}"):
        check_sources(file, tmp_path)


def test_a_folder_of_diffusers_becomes_a_checkpoint_that_the_job_starts_from(
    tmp_path: Path,
) -> None:
    """Once for all that name it; the file may be submitted again when the folder is gone."""
    store, folder = MemoryStore(), write_small_folder(tmp_path / "foreign")
    text = TRAIN.replace("name: t\n", f"name: u\ninit: {{diffusers: {folder}}}\n")
    specs = [prepared(load(tmp_path, text), tmp_path, store).spec for _ in range(2)]
    assert specs[0] == specs[1]
    assert isinstance(specs[0], TrainJob)
    init = specs[0].init
    assert init is not None
    assert init.checkpoint is not None
    assert init.checkpoint.startswith(f"{store.uri}/jobs/imported-")
    model = resolve_model(store, init)
    assert (model.step, model.weights) == (0, "ema")


def test_an_average_that_the_training_does_not_keep_is_refused(tmp_path: Path) -> None:
    """The names of those that it keeps follow from its decays."""
    store = with_training(tmp_path)
    text = SAMPLE.replace("{job: t}", "{job: t, weights: ema-0.5}")
    assert told(tmp_path, store, text) == (
        "/job.yaml:3: model.weights: t has no ema-0.5; it has: ema, model"
    )
    kept = TRAIN.replace("num_steps: 10,", "num_steps: 10, ema_decays: [0.5],")
    submit_job(store, prepared(load(tmp_path, kept), tmp_path, store).spec, "u")
    ours = SAMPLE.replace("{job: t}", "{job: u, weights: ema-0.5}")
    assert prepared(load(tmp_path, ours), tmp_path, store).warnings == ()


VAE = """\
kind: train
name: t
dataset: {source: set.npy, holdout_fraction: 0.5}
model: {family: vae, channels: 8, channel_multipliers: [1, 1]}
training: {num_steps: 10, global_batch_size: 2}
evaluation: {num_images: 0}
"""
OPEN_SAMPLE = SAMPLE.replace(", num_steps: 100", "")
LIKELIHOOD = """\
kind: likelihood
name: l
model: {job: t}
dataset: {source: set.npy, holdout_fraction: 0.5}
"""


def test_a_sample_job_of_a_vae_draws_in_its_one_step_unless_it_asks_for_more(
    tmp_path: Path,
) -> None:
    """The default is that of a DDPM; what somebody wrote is not changed in silence."""
    store = MemoryStore()
    vae = prepared(load(tmp_path, VAE), tmp_path, store)
    coming = {job.name: job for _, job in vae.jobs()}
    before = prepared(load(tmp_path, OPEN_SAMPLE), tmp_path, store, coming=coming).spec
    submit_job(store, vae.spec, "t")
    after = prepared(load(tmp_path, OPEN_SAMPLE), tmp_path, store).spec
    for spec in (before, after):
        assert isinstance(spec, SampleJob)
        assert spec.sampling.num_steps == 1
    assert "has 1 timestep; ask for 1 at most" in told(tmp_path, store, SAMPLE)
    heun = OPEN_SAMPLE.replace("microbatch_size: 8", "microbatch_size: 8, method: heun")
    assert "the model is a vae, which draws in one step" in told(tmp_path, store, heun)


def test_a_likelihood_of_a_vae_is_refused_before_it_is_queued(tmp_path: Path) -> None:
    """It failed on the cluster, after it had waited for the training's end."""
    store = MemoryStore()
    submit_job(store, prepared(load(tmp_path, VAE), tmp_path, store).spec, "t")
    message = told(tmp_path, store, LIKELIHOOD)
    assert message.startswith("/job.yaml:3: the model is a vae: a likelihood job bounds a DDPM's")
    pipeline = f"kind: pipeline\nname: p\nsteps:\n  train:\n{_step(VAE)}\n  bound:\n"
    pipeline += _step(LIKELIHOOD.replace("job: t", "step: train"))
    with pytest.raises(BadInputError, match="the model is a vae: a likelihood job"):
        load(tmp_path, pipeline)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What MLflow knows, by name; empty at first."""
    known: dict[str, str] = {}

    def ask(name: str) -> str:
        if name not in known:
            raise BadInputError(f"model.registered: MLflow knows no {name}")
        return known[name]

    monkeypatch.setattr(registered, "registered_checkpoint", ask)
    return known


def test_a_registered_models_steps_are_looked_at_before_anything_is_queued(
    tmp_path: Path, registry: dict[str, str]
) -> None:
    """A worker on the cluster was the first to say that a VAE cannot draw in 1,000 steps."""
    store = MemoryStore()
    submit_job(store, prepared(load(tmp_path, VAE), tmp_path, store).spec, "t")
    drawn = OPEN_SAMPLE.replace("{job: t}", "{registered: faces@best}")
    assert prepared(load(tmp_path, drawn), tmp_path, store).warnings == ()  # nothing of that name
    key = JobPaths("t").checkpoint(10)
    store.put(key, b"")
    registry["faces@best"] = f"{store.uri}/{key}"
    message = told(tmp_path, store, drawn)
    assert message.startswith(
        "/job.yaml:3: sampling.num_steps is 1000, but the model of faces@best"
    )
    assert "has 1 timestep; ask for 1 at most" in message
    one = drawn.replace("microbatch_size: 8", "microbatch_size: 8, num_steps: 1")
    prepared(load(tmp_path, one), tmp_path, store)
    bound = LIKELIHOOD.replace("{job: t}", "{registered: faces@best}")
    assert "a likelihood job bounds a DDPM's" in told(tmp_path, store, bound)


def test_a_name_that_an_earlier_step_may_register_is_not_looked_up(
    tmp_path: Path, registry: dict[str, str]
) -> None:
    """What it means now says nothing of what it will mean."""
    store = MemoryStore()
    submit_job(store, prepared(load(tmp_path, VAE), tmp_path, store).spec, "t")
    registry["faces@best"] = f"{store.uri}/{JobPaths('t').checkpoint(10)}"
    drawn = OPEN_SAMPLE.replace("{job: t}", "{registered: faces@best}")
    text = (
        f"kind: pipeline\nname: p\nsteps:\n  train:\n{_step(TRAIN)}\n  draw:\n    after: [train]\n"
    )
    (_, job) = (
        job for _, job in prepared(load(tmp_path, text + _step(drawn)), tmp_path, store).jobs()
    )
    assert isinstance(job, SampleJob)
    assert job.sampling.num_steps == 1000


def test_a_registry_that_does_not_answer_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MLflow's client tries again for minutes, and a sweep asks for each of its runs."""
    asked, is_over, now_s = queue.Queue[str](), threading.Event(), [0.0]

    def ask(name: str) -> str:
        asked.put(name)
        is_over.wait(60)
        return "s3://late"

    monkeypatch.setattr(registered, "registered_checkpoint", ask)
    registry = registered.Registry(patience_s=0.01, clock=lambda: now_s[0])
    assert registry.checkpoint_now("faces@best") == ""
    assert asked.get(timeout=60) == "faces@best"
    assert registry.checkpoint_now("cats@best") == ""
    assert asked.empty()
    is_over.set()
    now_s[0] += registered.REST_S
    registry.checkpoint_now("cats@best")
    assert asked.get(timeout=60) == "cats@best"


def test_an_address_that_is_none_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is amiss with it, the orchestrator says it when the job is to start."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at-all")
    assert registered.Registry(patience_s=60.0).checkpoint_now("faces@best") == ""
    assert capsys.readouterr().err == ""


def test_a_tag_that_is_no_checkpoint_is_left_to_the_orchestrator(
    tmp_path: Path, registry: dict[str, str]
) -> None:
    """Anybody may write a tag into MLflow's registry."""
    registry["faces@best"] = "s3://here/jobs/t/checkpoints/step-last.json"
    drawn = OPEN_SAMPLE.replace("{job: t}", "{registered: faces@best}")
    assert prepared(load(tmp_path, drawn), tmp_path, MemoryStore()).warnings == ()


def _step(text: str) -> str:
    lines = [line for line in text.splitlines() if not line.startswith("name")]
    return "\n".join(f"    {line}" for line in lines)


def test_a_pipelines_sample_step_of_a_gan_needs_no_number_of_steps(tmp_path: Path) -> None:
    """Its training stands in the same file."""
    gan = VAE.replace("family: vae", "family: gan")
    text = f"kind: pipeline\nname: p\nsteps:\n  train:\n{_step(gan)}\n  draw:\n"
    text += _step(OPEN_SAMPLE.replace("job: t", "step: train"))
    (_, drawn) = (job for _, job in load(tmp_path, text).jobs())
    assert isinstance(drawn, SampleJob)
    assert drawn.sampling.num_steps == 1


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("channels: 64", "channels: 32", "t has model.channels 64, and this training 32"),
        ("[1, 1]", "[1, 2]", "t has model.channel_multipliers (1, 1), and this training (1, 2)"),
        ("timesteps: 100", "timesteps: 100, prediction: v", "t has diffusion.prediction epsilon"),
        ("timesteps: 100", "timesteps: 100, variance: learned", "t has diffusion.outputs_per"),
        (
            "set.npy",
            "wide.npy",
            "t has images of (C, H, W) (1, 8, 8), and this training (1, 8, 16)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_told_at_submit(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    """The job would wait for its model, start its workers, and end with that."""
    store = with_training(tmp_path)
    np.save(tmp_path / "wide.npy", np.zeros((8, 8, 16, 1), dtype=np.uint8))
    text = TRAIN.replace("name: t\n", "name: u\ninit: {job: t}\n")
    prepared(load(tmp_path, text.replace("64\n", "64\n  dropout: 0.2\n")), tmp_path, store)
    with pytest.raises(BadInputError) as caught:
        prepared(load(tmp_path, text.replace(old, new)), tmp_path, store)
    assert f": init: {told}" in str(caught.value)
    assert str(caught.value).endswith("they must be equal")


def test_a_step_that_starts_from_another_step_must_fit_it(tmp_path: Path) -> None:
    """Both are in the file, so nothing has to be looked up."""
    lines = [f"    {line}" for line in TRAIN.splitlines() if not line.startswith("name")]
    first = "\n".join(lines)
    second = first.replace("channels: 64", "channels: 32").replace(
        "    kind: train", "    kind: train\n    init: {step: one}"
    )
    text = f"kind: pipeline\nname: p\nsteps:\n  one:\n{first}\n  two:\n{second}\n"
    with pytest.raises(BadInputError, match=r"init: step one has model\.channels 64") as caught:
        load(tmp_path, text)
    assert "job.yaml:23: " in str(caught.value)
