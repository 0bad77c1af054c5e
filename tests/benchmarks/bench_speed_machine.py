"""What this machine can do, what it is, and how long `ddpmctl` takes to answer on it."""

import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ddpm.compute import compile_obstacle, has_fast_bf16
from tests.benchmarks.bench_speed_setups import ROOT, device_kind, synchronize

DDPMCTL = Path(sys.executable).parent / "ddpmctl"
DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}
_BATCH, _CHANNELS, _SIZE = 64, 256, 16
_LIMIT_S = 0.3
_FIRST_STEP_TIMEOUT_S = 300.0
_CONFIGURED = ("AWS_", "RAY_", "MLFLOW_", "DDPMCTL_")


class ConvolutionLimit:
    """The rate of a 3x3 convolution, 256 channels to 256 at 16x16, channels_last: the limit.

    It is the U-Net's most frequent shape, without anything around it.
    """

    def __init__(self) -> None:
        shape = (_BATCH, _CHANNELS, _SIZE, _SIZE)
        self._flops = 2 * 9 * _CHANNELS * _CHANNELS * _BATCH * _SIZE * _SIZE
        self._operands = {}
        for name, dtype in DTYPES.items():
            self._operands[name] = [
                torch.randn(size, device=device_kind(), dtype=dtype).contiguous(
                    memory_format=torch.channels_last
                )
                for size in (shape, (_CHANNELS, _CHANNELS, 3, 3))
            ]

    @torch.no_grad()
    def flops_per_s(self, dtype_name: str) -> float:
        """Measure for about 0.3 s."""
        x, weight = self._operands[dtype_name]
        F.conv2d(x, weight, padding=1)
        synchronize()
        count, began_at = 0, time.perf_counter()
        while time.perf_counter() - began_at < _LIMIT_S:
            F.conv2d(x, weight, padding=1)
            synchronize()
            count += 1
        return count * self._flops / (time.perf_counter() - began_at)


def fastest_dtype() -> str:
    """Return which of the two limits is the machine's."""
    return "bf16" if has_fast_bf16(device_kind()) else "float32"


def describe_machine() -> dict[str, Any]:
    """Say what was measured on, with which versions, and how busy it was."""
    packages = ("torch", "diffusers", "numpy")
    return {
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "has_amx": torch.cpu._is_amx_tile_supported(),
        "has_avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "gpu": torch.cuda.get_device_name() if device_kind() == "cuda" else None,
        "compile_obstacle": compile_obstacle(device_kind()),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        "load_average": os.getloadavg(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def startup_times(repeats: int, with_stack: bool) -> dict[str, list[float]]:
    """Measure, in seconds: `--help`; with a stack of its own also `up`, `submit`, first step."""
    seconds = {"--help": [_seconds_of("--help") for _ in range(repeats + 1)][1:]}
    if with_stack:
        seconds |= _times_on_a_stack()
    return seconds


def median_and_spread(values: list[float]) -> tuple[float, float]:
    """Return the median, and (largest - smallest) / median."""
    median = statistics.median(values)
    return median, (max(values) - min(values)) / median


def _times_on_a_stack() -> dict[str, list[float]]:
    """Start a stack in a folder of its own, train there until the first step, and end it."""
    env = {name: v for name, v in os.environ.items() if not name.startswith(_CONFIGURED)}
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        place = {"cwd": folder, "env": env}
        try:
            seconds["up from nothing"] = [_seconds_of("up", **place)]
            seconds["submit"] = [_seconds_of("submit", str(ROOT / "jobs/train.yaml"), **place)]
            seconds["submit to first step"] = [_first_step_s(place, seconds["submit"][0])]
            _seconds_of("cancel", "digits", **place)
        finally:
            _seconds_of("down", **place)
    return seconds


def _seconds_of(*arguments: str, **place: Any) -> float:
    began_at = time.perf_counter()
    subprocess.run([str(DDPMCTL), *arguments], check=True, stdout=subprocess.DEVNULL, **place)
    return time.perf_counter() - began_at


def _first_step_s(place: dict[str, Any], submit_s: float) -> float:
    """Return the seconds from the submitting to the first step that a status shows."""
    began_at = time.perf_counter() - submit_s
    while time.perf_counter() - began_at < _FIRST_STEP_TIMEOUT_S:
        command = [str(DDPMCTL), "status", "digits", "-o", "json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **place)
        if json.loads(done.stdout).get("done"):
            return time.perf_counter() - began_at
    raise TimeoutError("the job took no step")


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found.group(1) if found else platform.processor()
