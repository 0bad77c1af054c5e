"""A step does what it says, a run goes on exactly where it stopped, and a bad loss ends it."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed import FileStore  # type: ignore[attr-defined]  # torch exports it late
from torch.multiprocessing.spawn import spawn
from torch.testing._internal.distributed.fake_pg import FakeStore

from ddpm.compute import ComputeDecision
from ddpm.config import ConfigError, DiffusionConfig, TrainingConfig, UNetConfig
from ddpm.errors import NonFiniteLossError
from ddpm.training.checkpoint import load_state, save_state
from ddpm.training.data import ImageDataset
from ddpm.training.learning_rate import learning_rate_at
from ddpm.training.loop import (
    StepMetrics,
    TrainState,
    train_steps,
)

UNET = UNetConfig(channels=8, channel_multipliers=(1, 2), num_res_blocks=1, dropout=0.1)
CONFIG = TrainingConfig(num_steps=8, global_batch_size=6, learning_rate=1e-3, ema_decay=0.9)


def _dataset() -> ImageDataset:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    return ImageDataset(images, np.arange(len(images)))


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


def _train(state: TrainState, until_step: int) -> list[StepMetrics]:
    return list(train_steps(state, _dataset(), until_step=until_step))


def _vectors(state: TrainState) -> dict[str, torch.Tensor]:
    moments = state.optimizer.moments
    return {
        "model": state.parameters.values,
        "ema": state.ema,
        "exp_avg": moments["exp_avg"],
        "exp_avg_sq": moments["exp_avg_sq"],
        "optimizer_step": state.optimizer.num_steps,
    }


def _assert_same_bits(ours: TrainState, theirs: TrainState) -> None:
    assert ours.step == theirs.step
    other = _vectors(theirs)
    for name, vector in _vectors(ours).items():
        assert torch.equal(vector, other[name]), name


def _killed_and_resumed(folder: Path, compute: ComputeDecision | None = None) -> TrainState:
    """Save at step 3, die at step 5, start again from the files and go on to step 8."""
    killed = _state(compute=compute)
    _train(killed, 3)
    save_state(killed, folder)
    _train(killed, 5)
    resumed = _state(compute=compute)
    load_state(resumed, folder)
    _train(resumed, 8)
    return resumed


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_killed_run_ends_with_the_bits_of_one_never_killed(
    tmp_path: Path, precision: Literal["bf16", "float32"]
) -> None:
    """A crash off a checkpoint's boundary must leave no trace, dropout included."""
    compute = ComputeDecision(precision=precision)
    whole = _state(compute=compute)
    _train(whole, 8)
    _assert_same_bits(_killed_and_resumed(tmp_path, compute), whole)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_workers_resume_to_the_same_bits(tmp_path: Path, world_size: int) -> None:
    """DDP's buckets were seen to break this at three workers; one flat all-reduce must not."""
    spawn(_resume_in_worker, (world_size, tmp_path), nprocs=world_size)


def _resume_in_worker(rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    for name, resume in (("whole", False), ("resumed", True)):
        store = FileStore(str(folder / f"store-{name}"), world_size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
        if resume:
            resumed = _killed_and_resumed(folder / f"rank-{rank}")
        else:
            whole = _state()
            _train(whole, 8)
        dist.destroy_process_group()
    _assert_same_bits(resumed, whole)


@pytest.mark.slow
def test_losses_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    """Every draw goes by the position in the global batch, so workers only share out the sums."""
    spawn(_train_in_worker, (3, tmp_path), nprocs=3)
    alone = _train(_state(), 6)
    together = torch.load(tmp_path / "losses.pt", weights_only=True)
    expected = [[m.loss, m.grad_norm] for m in alone]
    torch.testing.assert_close(together, torch.tensor(expected), rtol=1e-4, atol=1e-6)


def _train_in_worker(rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = FileStore(str(folder / "store"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    metrics = _train(_state(), 6)
    if rank == 0:
        torch.save(torch.tensor([[m.loss, m.grad_norm] for m in metrics]), folder / "losses.pt")
    # Only one worker is asked; all of them must leave after the same step.
    state = _state()
    asked = iter([False, False, True])
    stopping = train_steps(
        state, _dataset(), until_step=6, stop_requested=lambda: rank == 1 and next(asked)
    )
    assert [m.step for m in stopping] == [1, 2, 3]
    dist.destroy_process_group()


def test_metrics_describe_the_step() -> None:
    """They are what people see of a run, so each has to be what its name says."""
    first, *_, last = _train(_state(), 4)
    assert (first.step, last.step) == (1, 4)
    # The network's first output is 0, so the first loss is that of predicting no noise at all.
    assert first.loss == pytest.approx(1.0, abs=0.2)
    present = [loss for loss in first.loss_by_quarter if loss is not None]
    assert len(first.loss_by_quarter) == 4
    assert min(present) <= first.loss <= max(present)
    assert first.grad_norm > 0
    assert first.learning_rate == CONFIG.learning_rate
    assert first.images_per_s > 0
    assert 0 <= first.data_wait_s < 6 / first.images_per_s


def test_quarter_without_an_image_is_none() -> None:
    """A batch of one lies in one quarter only; a 0 elsewhere would look like a perfect loss."""
    (metrics,) = _train(_state(dataclasses.replace(CONFIG, global_batch_size=1)), 1)
    assert sorted(loss is None for loss in metrics.loss_by_quarter) == [False, True, True, True]
    assert metrics.loss in metrics.loss_by_quarter


def test_training_lowers_the_loss() -> None:
    """Sixty steps on one image that is always the same must show."""
    config = dataclasses.replace(CONFIG, global_batch_size=16, learning_rate=3e-3)
    images = np.full((1, 8, 8, 1), 255, dtype=np.uint8)
    state = _state(config, dataclasses.replace(UNET, dropout=0.0))
    dataset = ImageDataset(images, np.arange(1))
    losses = [metrics.loss for metrics in train_steps(state, dataset, until_step=60)]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


def test_gradient_is_clipped_to_the_norm() -> None:
    """Adam hides the scale of a gradient, so look at its first average: 0.1 * gradient."""
    state = _state(dataclasses.replace(CONFIG, grad_clip_norm=1e-3))
    (metrics,) = _train(state, 1)
    assert metrics.grad_norm > 1e-3
    norm = state.optimizer.moments["exp_avg"].norm().item()
    assert norm == pytest.approx(1e-4, rel=1e-2)


@pytest.mark.parametrize("labels", [False, True])
def test_parts_of_a_batch_add_up_to_its_step(labels: bool) -> None:
    """Less memory must not be another training: dropout, noise and labels go by the position."""
    unet = dataclasses.replace(UNET, num_classes=3 if labels else 0)
    whole, parted, again = (
        _state(dataclasses.replace(CONFIG, microbatch_size=size), unet) for size in (None, 2, 2)
    )
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    classes = np.arange(20) % 3 if labels else None
    dataset = ImageDataset(images, np.arange(20), classes)
    told = [list(train_steps(state, dataset, until_step=3)) for state in (whole, parted, again)]
    _assert_same_bits(parted, again)
    for one, other in zip(told[0], told[1], strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-5)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-4)
        quarters = [[part or 0.0 for part in step.loss_by_quarter] for step in (one, other)]
        assert quarters[1] == pytest.approx(quarters[0], rel=1e-5)
    assert not torch.equal(parted.parameters.values, whole.parameters.values)


def test_a_part_as_large_as_the_share_keeps_the_bits() -> None:
    """Whoever says what is so anyway gets what there was."""
    whole, same = (_state(dataclasses.replace(CONFIG, microbatch_size=n)) for n in (None, 6))
    _train(whole, 2)
    _train(same, 2)
    _assert_same_bits(same, whole)


def test_a_part_that_divides_no_share_is_refused() -> None:
    """The last part would have another size, and a compiled network takes one."""
    with pytest.raises(ConfigError, match="microbatch_size must be a divisor of 6, a worker's"):
        _train(_state(dataclasses.replace(CONFIG, microbatch_size=4)), 1)


def test_learning_rate_rises_linearly_then_stays() -> None:
    """The first step must not have the rate 0, which would waste it."""
    config = dataclasses.replace(CONFIG, lr_warmup_steps=4, learning_rate=1.0)
    assert [learning_rate_at(config, step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert learning_rate_at(CONFIG, 0) == CONFIG.learning_rate


def test_weight_decay_shrinks_the_weights_with_adamw() -> None:
    """Adam has none: TrainingConfig refuses it there, so only AdamW can be compared."""
    decayed = _state(dataclasses.replace(CONFIG, optimizer="adamw", weight_decay=10.0))
    plain = _state(dataclasses.replace(CONFIG, optimizer="adamw"))
    _train(decayed, 2)
    _train(plain, 2)
    assert decayed.parameters.values.norm() < plain.parameters.values.norm()


def test_flips_mirror_some_images_and_only_when_asked() -> None:
    """Mirrored digits are wrong digits."""
    plain = _train(_state(), 1)[0]
    flipped = _train(_state(dataclasses.replace(CONFIG, horizontal_flip=True)), 1)[0]
    assert plain.grad_norm != flipped.grad_norm


def test_loss_that_is_not_finite_ends_the_run() -> None:
    """The error comes before the iterator ends, so that nobody saves such a state."""
    state = _state()
    _train(state, 2)
    state.parameters.values[0] = math.nan
    with pytest.raises(NonFiniteLossError, match="at step 3 the loss is nan"):
        _train(state, 8)


@pytest.mark.slow
def test_uncompiled_training_imports_no_compiler() -> None:
    """The optimizers of torch, and its modules moved off "meta", would: a second of a start."""
    code = (
        "import sys; from tests.ddpm.training import test_loop as tests;"
        "tests._train(tests._state(), 2);"
        "print({'torch._dynamo', 'sympy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_batch_that_workers_do_not_divide_is_refused() -> None:
    """It must be an input error and not a silent change of the batch."""
    config = dataclasses.replace(CONFIG, global_batch_size=7)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        with pytest.raises(ConfigError, match="global_batch_size"):
            _train(_state(config), 1)
    finally:
        dist.destroy_process_group()


def test_stop_ends_after_the_step_that_was_asked_in() -> None:
    """A preempted worker saves at once; every further step would be time taken from others."""
    state = _state()
    asked = iter([False, True])
    steps = [
        m.step
        for m in train_steps(state, _dataset(), until_step=8, stop_requested=lambda: next(asked))
    ]
    assert steps == [1, 2]
    assert state.step == 2


def test_dropout_depends_on_the_step_alone_and_other_draws_on_nothing_global() -> None:
    """A caller that draws numbers between two steps must not change the run."""
    quiet, noisy = _state(), _state()
    _train(quiet, 3)
    for _ in train_steps(noisy, _dataset(), until_step=3):
        torch.rand(7)
    _assert_same_bits(noisy, quiet)
