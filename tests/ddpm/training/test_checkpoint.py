"""A checkpoint holds the whole state, no code, and says in one line why it doesn't fit."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ddpm.compute import ComputeDecision
from ddpm.config import DiffusionConfig, TrainingConfig, UNetConfig
from ddpm.errors import CheckpointFormatError
from ddpm.training.checkpoint import (
    CHECKPOINT_FILES,
    StateSnapshot,
    load_model,
    load_state,
    save_state,
)
from ddpm.training.checkpoint_info import read_info
from ddpm.training.data import ImageDataset
from ddpm.training.loop import TrainState, train_steps

UNET = UNetConfig(channels=8, channel_multipliers=(1, 2), num_res_blocks=1, dropout=0.0)
CONFIG = TrainingConfig(num_steps=8, global_batch_size=4)


def _state(
    config: TrainingConfig = CONFIG,
    unet_config: UNetConfig = UNET,
    compute: ComputeDecision | None = None,
) -> TrainState:
    return TrainState(
        unet_config=unet_config,
        diffusion_config=DiffusionConfig(num_timesteps=100),
        config=config,
        image_shape=(1, 8, 8),
        compute=compute or ComputeDecision(),
    )


def _trained_state() -> TrainState:
    state = _state()
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1), dtype=np.uint8)
    for _ in train_steps(state, ImageDataset(images, np.arange(9)), until_step=2):
        pass
    return state


@pytest.fixture(scope="module")
def trained() -> TrainState:
    """A state after two steps, which the tests must not change."""
    return _trained_state()


@pytest.fixture
def folder(trained: TrainState, tmp_path: Path) -> Path:
    """The files of that state."""
    save_state(trained, tmp_path, fixed={"num_workers": 2})
    return tmp_path


def test_files_have_their_names(trained: TrainState, tmp_path: Path) -> None:
    """The store's layout and other tools rely on these names."""
    files = save_state(trained, tmp_path / "new" / "folder")
    assert [file.name for file in files] == list(CHECKPOINT_FILES)
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == sorted(
        CHECKPOINT_FILES
    )


def test_state_comes_back_with_its_memory_format(trained: TrainState, folder: Path) -> None:
    """The files are row-major; a network that was left so would run slowly and with other bits."""
    state = _state()
    info = load_state(state, folder)
    assert (info.step, state.step, dict(info.fixed)) == (2, 2, {"num_workers": 2})
    assert torch.equal(state.parameters.values, trained.parameters.values)
    assert torch.equal(state.ema, trained.ema)
    weight = dict(state.model.named_parameters())["down.0.stages.0.block.conv1.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_checkpoint_is_the_same_from_either_memory_format(folder: Path, tmp_path: Path) -> None:
    """The memory format is how a machine computes, not what was learned."""
    state = _state(compute=ComputeDecision(channels_last=False))
    values = json.loads((folder / "state.json").read_text())
    values["compute"]["channels_last"] = False
    (folder / "state.json").write_text(json.dumps(values))
    load_state(state, folder)
    save_state(state, tmp_path / "again")
    ours = load_file(tmp_path / "again" / "model.safetensors")
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(ours[name], tensor)


def test_snapshot_keeps_its_step_while_training_goes_on(tmp_path: Path) -> None:
    """A thread writes it while the next steps already change the weights."""
    state = _trained_state()
    values = state.parameters.values.clone()
    snapshot = StateSnapshot.take(state)
    state.parameters.values.zero_()
    state.ema.zero_()
    state.step = 99
    snapshot.write(tmp_path)
    resumed = _state()
    load_state(resumed, tmp_path)
    assert resumed.step == 2
    assert torch.equal(resumed.parameters.values, values)


@pytest.mark.parametrize("weights", ["ema", "model"])
def test_model_loads_with_either_weights(trained: TrainState, folder: Path, weights: str) -> None:
    """Sampling needs the network alone and must not fetch the optimizer, half of the bytes."""
    (folder / "optimizer.safetensors").unlink()
    model, info = load_model(folder, weights=weights)
    assert info.unet_config == UNET
    assert info.diffusion_config == DiffusionConfig(num_timesteps=100)
    assert info.image_shape == (1, 8, 8)
    vector = trained.ema if weights == "ema" else trained.parameters.values
    expected = trained.parameters.contiguous_tensors(vector)
    assert all(torch.equal(p, expected[name]) for name, p in model.named_parameters())
    assert not model.training


def test_run_may_be_made_longer(folder: Path) -> None:
    """The number of steps is the one thing that a resumed run may change."""
    state = _state(dataclasses.replace(CONFIG, num_steps=20))
    assert load_state(state, folder).training_config.num_steps == 8


def test_run_whose_rates_depend_on_its_length_is_not_made_longer(tmp_path: Path) -> None:
    """Its first steps would have had other rates."""
    config = dataclasses.replace(CONFIG, lr_schedule="cosine")
    save_state(_state(config), tmp_path)
    load_state(_state(config), tmp_path)
    with pytest.raises(CheckpointFormatError, match="training_config"):
        load_state(_state(dataclasses.replace(config, num_steps=20)), tmp_path)


@pytest.mark.parametrize(
    ("state", "part"),
    [
        (_state(dataclasses.replace(CONFIG, learning_rate=1.0)), "training_config"),
        (_state(unet_config=dataclasses.replace(UNET, dropout=0.3)), "unet_config"),
        (_state(compute=ComputeDecision(num_threads=7)), "compute"),
    ],
)
def test_state_of_another_run_is_refused(folder: Path, state: TrainState, part: str) -> None:
    """It would train on with other bits, or fail somewhere deep in torch."""
    with pytest.raises(CheckpointFormatError, match=f"has another {part}"):
        load_state(state, folder)
    assert state.step == 0


def _edit_json(key: str, value: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "state.json"
        values = json.loads(path.read_text())
        if value is None:
            del values[key]
        else:
            values[key] = value
        path.write_text(json.dumps(values))

    return edit


def _edit_tensors(edit_one: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        edit_one(tensors)
        save_file(tensors, folder / "model.safetensors")

    return edit


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_edit_json("format_version", 99), "format version 99, this program reads 1"),
        (_edit_json("format_version", None), "lacks the key 'format_version'"),
        (_edit_json("step", None), "lacks the key 'step'"),
        (_edit_json("step", "many"), "is not a checkpoint's"),
        (_edit_json("unet_config", {"channels": -2}), "channels must be greater than 0"),
        (lambda folder: (folder / "state.json").write_text("{"), "is not a checkpoint's"),
        (lambda folder: (folder / "state.json").write_text("[]"), "is not a checkpoint's"),
        (lambda folder: (folder / "state.json").unlink(), "can't be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "can't be read"),
        (_truncate, "can't be read"),
        (_edit_tensors(lambda t: t.pop("conv_in.bias")), "lacks the tensor conv_in.bias"),
        (
            _edit_tensors(lambda t: t.update(extra=torch.ones(1))),
            "has an unknown tensor extra",
        ),
        (
            _edit_tensors(lambda t: t.update({"conv_in.bias": torch.ones(3)})),
            r"conv_in.bias is torch.float32 \(3,\), not float32 \(8,\)",
        ),
        (
            _edit_tensors(lambda t: t.update({"conv_in.bias": torch.ones(8).half()})),
            "conv_in.bias is torch.float16",
        ),
    ],
)
def test_damage_is_named_in_one_line(
    folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    """Whoever reads it must learn which file to look at; the caller takes an older checkpoint."""
    damage(folder)
    with pytest.raises(CheckpointFormatError, match=message) as caught:
        load_model(folder, weights="model")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    state = _state()
    with pytest.raises(CheckpointFormatError, match=message):
        load_state(state, folder)
    assert state.step == 0


def test_unknown_fields_are_ignored(folder: Path) -> None:
    """A newer version may add a field without locking older readers out."""
    _edit_json("new_field", 1)(folder)
    values = json.loads((folder / "state.json").read_text())
    values["unet_config"]["new_size"] = 3
    values["compute"]["new_choice"] = True
    (folder / "state.json").write_text(json.dumps(values))
    assert read_info(folder).unet_config == UNET
