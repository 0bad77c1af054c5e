"""Every field of the mathematics that a job file may set changes bits, or says why it does not.

A field that is read and then lost on its way costs its user days: the job runs, and does something
else. So each one is set to another value, a small model is trained and drawn with, and the bytes
of the checkpoint or of the images have to be others.
"""

import dataclasses
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm.compute import Workload, compile_obstacle, decide_compute
from ddpm.config import DiffusionConfig, SamplingConfig, TrainingConfig, UNetConfig
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.steps import settled
from ddpm.training.checkpoint import load_model, save_state
from ddpm.training.loop import TrainState
from orchestrator.artifacts.samples.labels import make_rule
from orchestrator.fleet.work import Watch
from orchestrator.jobs.units import Shard
from orchestrator.sampling.drawing import DrawnShard, ShardSampler, UnfinishedShard
from orchestrator.sampling.network import Drawing, build_denoiser
from tests.support.golden import digest
from tests.support.small_training import UNET, train

pytestmark = pytest.mark.slow  # some forty small trainings

NUM_CLASSES = 3
SHAPE = (1, 8, 8)
NUM_IMAGES = 6
SECTIONS: Mapping[str, type] = {
    "model": UNetConfig,
    "diffusion": DiffusionConfig,
    "training": TrainingConfig,
    "sampling": SamplingConfig,
}
COMMON: Mapping[str, Mapping[str, Any]] = {
    # Group norm takes what is equal in all pixels of a group away: 64 channels are two a group, so
    # that the embedding of timestep and label is not lost.
    "model": {**UNET, "channel_multipliers": (1, 8)},
    "diffusion": {"num_timesteps": 24},
    "training": {
        "num_steps": 3,
        "global_batch_size": 4,
        "learning_rate": 3e-2,
        "precision": "float32",
        "compile": False,
    },
    "sampling": {"num_steps": 4, "microbatch_size": 6, "precision": "float32", "compile": False},
}


@dataclass(frozen=True)
class Case:
    """One field set to another value.

    Attributes:
        other: That value.
        around: What has to be set, by section, for the field to have a meaning, in both runs.
        beside: What has to change with it, in its own section: the rest would not be accepted.
    """

    other: Any
    around: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    beside: Mapping[str, Any] = field(default_factory=dict)


# The last layer begins at 0, so it takes some steps until a label is seen in an image.
Around = Mapping[str, Mapping[str, Any]]
LABELLED: Around = {"model": {"num_classes": "auto"}, "training": {"num_steps": 12}}
GUIDED: Around = {**LABELLED, "sampling": {"guidance_scale": 8.0}}
DDIM: Around = {"sampling": {"method": "ddim"}}
WHOLE: Around = {"sampling": {"num_steps": 24}}
# Of one step, and with no size that a VAE's or a GAN's networks do not have.
ONE_STEP: Around = {
    "model": {"num_res_blocks": 2, "attention_resolutions": (16,)},
    "diffusion": {"num_timesteps": 1, "betas": "cosine", "prediction": "x_start"},
    "sampling": {"num_steps": 1},
}
VAE: Around = {**ONE_STEP, "model": {**ONE_STEP["model"], "family": "vae"}}

CASES: Mapping[str, Mapping[str, Case]] = {
    "model": {
        "family": Case("vae", ONE_STEP),
        "channels": Case(16),
        "channel_multipliers": Case((1, 4)),
        "num_res_blocks": Case(2),
        "attention_resolutions": Case((8, 4)),
        "num_heads": Case(2),
        "attention_head_dim": Case(4),
        "num_classes": Case("auto"),
        "norm_eps": Case(1e-2),
        "dropout": Case(0.5),
        "augmentation": Case(True),
        "latent_size": Case(8, VAE),
    },
    "diffusion": {
        "num_timesteps": Case(30),
        "betas": Case("cosine"),
        "rescale_zero_snr": Case(True, {"diffusion": {"prediction": "v"}}),
        "prediction": Case("v"),
        "variance": Case("fixed_small", WHOLE),
        "loss": Case("weighted"),
        "min_snr_gamma": Case(0.1, {"diffusion": {"loss": "min_snr"}}),
        "vlb_weight": Case(0.5, {"diffusion": {"variance": "learned"}}),
    },
    "training": {
        "num_steps": Case(4),
        "global_batch_size": Case(5),
        "microbatch_size": Case(2),
        "learning_rate": Case(1e-2),
        "lr_warmup_steps": Case(2),
        "lr_schedule": Case("cosine"),
        "optimizer": Case("adamw", beside={"weight_decay": 0.1}),
        "weight_decay": Case(0.2, {"training": {"optimizer": "adamw"}}),
        "grad_clip_norm": Case(0.01),
        "ema_decay": Case(0.5, {"training": {"ema_warmup": False}}),
        "ema_decays": Case((0.5,)),
        "ema_warmup": Case(False),
        "label_dropout": Case(1.0, LABELLED),
        "horizontal_flip": Case(True),
        "augment": Case(0.5, {"model": {"augmentation": True}}),
        "precision": Case("bf16"),
        "seed": Case(1),
    },
    "sampling": {
        "method": Case("ddim"),
        "num_steps": Case(5),
        "eta": Case(0.5, DDIM),
        "spacing": Case("quadratic"),
        "variance": Case("fixed_large"),
        "labels": Case((2,), LABELLED),
        "guidance_scale": Case(8.0, LABELLED),
        "guidance_interval": Case((0.0, 0.5), GUIDED),
        "clip_denoised": Case(False),
        "keep_epsilon": Case(True, DDIM),
        "seed": Case(1),
        "precision": Case("bf16"),
        "trajectory": Case(2),
    },
}
# Fields that may leave all bits as they are, and the words with which their docstring says so.
SAME: Mapping[str, Mapping[str, Case]] = {
    "training": {"activation_checkpointing": Case(True)},
    "sampling": {"microbatch_size": Case(3)},
}
SAME_WORDS = {
    "activation_checkpointing": "the same bits",
    "microbatch_size": "Part of what fixes the bits",
}
DECIDED = {"training": {"compile"}, "sampling": {"compile"}}  # see the last test
FLIPS = [(section, name) for section, cases in CASES.items() for name in cases]
# Every value of a choice, as far as two of them could be one by mistake.
CHOICES: list[tuple[str, str, str, Around]] = [
    *(("model", "family", v, ONE_STEP) for v in ("vae", "gan")),
    *(("diffusion", "betas", v, {}) for v in ("cosine", "sigmoid", "scaled_linear")),
    *(("diffusion", "prediction", v, {}) for v in ("x_start", "mean", "v")),
    *(("diffusion", "loss", v, {}) for v in ("weighted", "min_snr")),
    ("diffusion", "variance", "learned", {}),
    ("training", "lr_schedule", "linear", {}),
    ("training", "lr_schedule", "inverse_sqrt", {"training": {"lr_warmup_steps": 1}}),
    *(("sampling", "method", v, {}) for v in ("ddim", "dpm++2m", "dpm++2m_sde", "heun")),
    *(("sampling", "spacing", v, {}) for v in ("logsnr", "karras", "ddim_quadratic")),
]


@dataclass(frozen=True)
class Outcome:
    """What came of a training and of drawing with it.

    Attributes:
        checkpoint: Digest of all that a checkpoint holds of the training.
        images: Digest of the images.
        frames: Digest of the films; "" for none.
    """

    checkpoint: str
    images: str
    frames: str


def settings(
    around: Mapping[str, Mapping[str, Any]], change: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the configurations of all sections."""
    return {
        name: kind(**{**COMMON[name], **around.get(name, {}), **change.get(name, {})})
        for name, kind in SECTIONS.items()
    }


@cache
def trained(
    model: UNetConfig, diffusion: DiffusionConfig, training: TrainingConfig
) -> tuple[str, Path]:
    """Train a small network; return a digest of its state, and its checkpoint."""
    compute = decide_compute(
        Workload(diffusion=diffusion),
        precision=training.precision,
        compile_request=training.compile,
        num_threads=1,
        worth_compiling=False,
    )
    state = TrainState(
        unet_config=model.for_classes(NUM_CLASSES),
        diffusion_config=diffusion,
        config=training,
        image_shape=SHAPE,
        compute=compute,
    )
    train(state, training.num_steps, NUM_CLASSES)
    folder = Path(tempfile.mkdtemp())
    save_state(state, folder)
    vectors = (state.parameters.values, state.ema, *state.further_emas.values())
    return digest(*vectors, *state.optimizer.moments.values()), folder


def drawn(folder: Path, config: SamplingConfig, weights: str = "ema") -> DrawnShard:
    """Draw with a checkpoint as a worker of a sample job does."""
    network, info = load_model(folder, weights=weights)
    compute = decide_compute(
        Workload(),
        precision=config.precision,
        compile_request=config.compile,
        num_threads=1,
        worth_compiling=False,
    )
    drawing = Drawing(
        network=build_denoiser(network, compute),
        diffusion=GaussianDiffusion(info.diffusion_config),
        config=settled(config, info.diffusion_config),
        rule=make_rule(config, info.unet_config.known_classes),
        null_label=network.null_label,
    )
    sampler = ShardSampler(
        drawing.denoiser,
        drawing.diffusion,
        drawing.config,
        SHAPE,
        torch.device("cpu"),
        num_trajectories=config.trajectory,
    )
    made = sampler.draw(UnfinishedShard(shard=Shard(0, 0, NUM_IMAGES)), Watch())
    assert isinstance(made, DrawnShard)
    return made


@cache
def outcome(
    *,
    model: UNetConfig,
    diffusion: DiffusionConfig,
    training: TrainingConfig,
    sampling: SamplingConfig,
) -> Outcome:
    """Train and draw with some settings."""
    checkpoint, folder = trained(model, diffusion, training)
    shard = drawn(folder, sampling)
    frames = "" if shard.frames is None else digest(torch.from_numpy(shard.frames))
    return Outcome(checkpoint, digest(torch.from_numpy(shard.pixels)), frames)


def flipped(section: str, name: str, case: Case) -> tuple[Outcome, Outcome]:
    """Return what comes of the settings around a case, and of those with its other value."""
    change = {section: {**case.around.get(section, {}), name: case.other, **case.beside}}
    return outcome(**settings(case.around, {})), outcome(**settings(case.around, change))


def test_every_field_has_its_case() -> None:
    """A new field is held to this rule from its first day on."""
    for section, kind in SECTIONS.items():
        names = {one.name for one in dataclasses.fields(kind)}
        known = [set(CASES[section]), set(SAME.get(section, {})), DECIDED.get(section, set())]
        assert names == set().union(*known), section
        assert sum(map(len, known)) == len(names), section


@pytest.mark.parametrize(("section", "name"), FLIPS, ids=lambda value: value)
def test_a_field_changes_a_checkpoint_or_an_image(section: str, name: str) -> None:
    """What a user wrote has to reach the arithmetic; a sampler's fields reach images alone."""
    before, after = flipped(section, name, CASES[section][name])
    assert before != after
    if section == "sampling":
        assert before.checkpoint == after.checkpoint


@pytest.mark.parametrize(("section", "name", "value", "around"), CHOICES)
def test_each_choice_is_one_of_its_own(
    section: str, name: str, value: str, around: Mapping[str, Any]
) -> None:
    """Two names for one method would be a sampler or a loss that nobody gets."""
    before, after = flipped(section, name, Case(value, around))
    others = [Case(v, a) for s, n, v, a in CHOICES if (s, n, a) == (section, name, around)]
    same = [flipped(section, name, other)[1] for other in others if other.other != value]
    assert after not in [before, *same]


@pytest.mark.parametrize("section", SAME)
def test_a_field_that_may_leave_bits_alone_says_so(section: str) -> None:
    """Such a field is no exception in silence: its docstring, and so the reference, has the reason.

    What it leaves alone it leaves alone to the bit, or to the rounding of one of 256 levels.
    """
    for name, case in SAME[section].items():
        assert SAME_WORDS[name] in documented(SECTIONS[section], name)
        around, changed = settings({}, {}), settings({}, {section: {name: case.other}})
        if section == "training":
            assert outcome(**around).checkpoint == outcome(**changed).checkpoint
            continue
        folder = trained(around["model"], around["diffusion"], around["training"])[1]
        one, other = (drawn(folder, s["sampling"]).pixels.astype(int) for s in (around, changed))
        assert abs(one - other).max() <= 1


@pytest.mark.parametrize("weights", ["model", "ema-0.5"])
def test_the_weights_that_a_model_is_asked_for_change_its_images(weights: str) -> None:
    """`weights:` of a model names a file; each holds values of its own."""
    configs = settings({"training": {"ema_decays": (0.5,), "ema_warmup": False}}, {})
    folder = trained(configs["model"], configs["diffusion"], configs["training"])[1]
    one, other = (drawn(folder, configs["sampling"], name).pixels for name in ("ema", weights))
    assert (one != other).any()


@pytest.mark.parametrize("section", DECIDED)
def test_compile_is_decided_once_and_recorded(section: str) -> None:
    """Compiled code rounds as it likes, perhaps as eager code does; the decision tells them apart.

    Where nothing can be compiled, the record says why.
    """
    configs = settings({}, {})
    asked, not_asked = (
        decide_compute(
            Workload(),
            precision="float32",
            compile_request=replace(configs[section], compile=value).compile,
            num_threads=1,
            worth_compiling=False,
            device_kind="cpu",
        )
        for value in (True, False)
    )
    assert not not_asked.compiled
    assert asked.compiled or f"eager, since {compile_obstacle('cpu')}" in asked.reason
    assert "compiled" in documented(SECTIONS[section], "compile")


def documented(kind: type, name: str) -> str:
    """Return what a configuration's docstring says of a field."""
    found = re.search(
        rf"^ +{name}: (.*?)(?=^ +\w+: |\Z)", kind.__doc__ or "", re.MULTILINE | re.DOTALL
    )
    assert found, (kind, name)
    return " ".join(found[1].split())
