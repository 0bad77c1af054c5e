"""What the machine of a job does: CPU, memory and, where there is one, the GPU."""

import sys
import threading
from collections.abc import Callable, Mapping
from typing import Self

import psutil

from orchestrator.store.watched_thread import WatchedThread

_MB = 1e6


def sample_system() -> dict[str, float]:
    """Return the machine's load under the names that MLflow shows as system metrics."""
    memory = psutil.virtual_memory()
    values = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / _MB,
        "system/system_memory_usage_percentage": memory.percent,
        "system/process_memory_usage_megabytes": psutil.Process().memory_info().rss / _MB,
    }
    return values | _sample_gpus()


def _sample_gpus() -> dict[str, float]:
    # Only where the process has opened the GPU itself: looking must not take memory there.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    values: dict[str, float] = {}
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = f"system/gpu_{index}"
        values[f"{name}_memory_usage_megabytes"] = (total - free) / _MB
        values[f"{name}_memory_usage_percentage"] = 100 * (total - free) / total
        try:
            values[f"{name}_utilization_percentage"] = float(torch.cuda.utilization(index))
        except (ModuleNotFoundError, RuntimeError):
            continue  # needs nvidia-ml-py and a driver that reports it
    return values


class SystemMetrics:
    """Samples the machine on a thread and hands the values on.

    Args:
        log: Takes the values, such as `MetricWriter.log_system`.
        every_s: Seconds between samples.
    """

    def __init__(self, log: Callable[[Mapping[str, float]], None], every_s: float = 10.0) -> None:
        self._log = log
        self._every_s = every_s
        self._ended = threading.Event()
        # Watched for its word in the log alone: a training does not end for want of these.
        self._thread = WatchedThread(self._run, "system-metrics")

    def __enter__(self) -> Self:
        psutil.cpu_percent()  # the first call only sets the mark from which load is measured
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            self._log(sample_system())
