"""How a job computes is decided once, never slower than asked for, and kept with the job."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from ddpm.compute import ComputeDecision, Workload, compile_obstacle, decide_compute, has_fast_bf16
from ddpm.config import ConfigError, DiffusionConfig, Precision


def test_decision_survives_json_and_unknown_fields() -> None:
    """It is read back by later attempts, perhaps of a newer or an older version."""
    decision = ComputeDecision(precision="bf16", compiled=True, num_threads=3, reason="why")
    assert ComputeDecision.from_json(decision.to_json() | {"new": 1}) == decision


@pytest.mark.parametrize("asked", ["bf16", "float32"])
def test_precision_that_was_asked_for_is_taken(asked: Precision) -> None:
    """Whoever names a precision knows why; only "auto" looks at the machine."""
    decision = decide_compute(
        Workload(),
        precision=asked,
        compile_request=False,
        num_threads=2,
        worth_compiling=True,
        device_kind="cpu",
    )
    assert (decision.precision, decision.compiled, decision.num_threads) == (asked, False, 2)


def test_auto_takes_bfloat16_only_where_the_hardware_multiplies_it() -> None:
    """Emulated bfloat16 is slower than float32 and less exact."""
    decision = decide_compute(
        Workload(),
        precision="auto",
        compile_request="auto",
        num_threads=1,
        worth_compiling=False,
        device_kind="cpu",
    )
    assert decision.precision == ("bf16" if has_fast_bf16("cpu") else "float32")
    assert not decision.compiled
    assert "shorter than compiling" in decision.reason


def test_machine_without_a_compiler_runs_eager_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop without g++ must still train, even where compiling was asked for."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compile_obstacle("cpu") == "there is no C++ compiler"
    decision = decide_compute(
        Workload(),
        precision="float32",
        compile_request=True,
        num_threads=1,
        worth_compiling=True,
        device_kind="cpu",
    )
    assert not decision.compiled
    assert "eager, since there is no C++ compiler" in decision.reason


def test_model_is_placed_in_the_decided_memory_format() -> None:
    """channels_last is half of the speed on a CPU with matrix units."""
    model = nn.Conv2d(8, 8, 3)
    ComputeDecision(channels_last=True).place(model)
    assert model.weight.is_contiguous(memory_format=torch.channels_last)
    ComputeDecision(channels_last=False).place(model)
    assert model.weight.is_contiguous()


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("float32", torch.float32)]
)
def test_autocast_computes_in_the_decided_precision(
    precision: Literal["bf16", "float32"], dtype: torch.dtype
) -> None:
    """The weights stay float32 in training; only the products are rounded."""
    layer = nn.Linear(2, 2)
    with ComputeDecision(precision=precision).autocast():
        assert layer(torch.ones(1, 2)).dtype == dtype


def test_a_gpu_is_asked_for_its_compiler_in_a_process_that_has_loaded_none() -> None:
    """Every job on a GPU asks, compiled or not, before it loads the compiler's modules."""
    code = (
        "import sys; from ddpm.compute import compile_obstacle;"
        "was_loaded = 'torch._dynamo' in sys.modules;"
        "print(compile_obstacle('cuda') in (None, 'there is no Triton'), was_loaded)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_predicted_mean_is_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its x_0 is that output divided by as little as 1e-4: rounded to bfloat16, nothing is left."""
    monkeypatch.setattr("ddpm.compute.has_fast_bf16", lambda device_kind: True)
    decide = partial(
        decide_compute,
        compile_request=False,
        num_threads=1,
        worth_compiling=False,
        device_kind="cpu",
    )
    assert decide(Workload(), precision="auto").precision == "bf16"
    mean = Workload(diffusion=DiffusionConfig(prediction="mean"))
    decision = decide(mean, precision="auto")
    assert decision.precision == "float32"
    assert "predicts the mean" in decision.reason
    with pytest.raises(ConfigError, match="precision must be float32"):
        decide(mean, precision="bf16")
