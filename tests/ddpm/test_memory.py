"""A process that computes keeps the memory that it frees, on large pages."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MEGABYTES = 64
PROGRAM = f"""
import re, resource, torch
from pathlib import Path
from ddpm.compute import ComputeDecision
ComputeDecision().apply_to_process()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones({MEGABYTES} << 18)
before = faults()
kept = torch.ones({MEGABYTES} << 18)
large = re.search(r"AnonHugePages: *([0-9]+)", Path("/proc/self/smaps_rollup").read_text())
print(faults() - before, int(large[1]) >> 10)
"""


@pytest.fixture(scope="module")
def measured() -> tuple[int, int]:
    """Page faults of memory that is taken again, and megabytes on large pages."""
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("the C library has no such setting")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    faults, megabytes = map(int, done.stdout.split())
    return faults, megabytes


def test_freed_memory_is_taken_again(measured: tuple[int, int]) -> None:
    """Fresh pages for the maps of each step took more than a tenth of it."""
    assert measured[0] < MEGABYTES  # small pages that are taken anew are 256 times as many


def test_pages_are_large(measured: tuple[int, int]) -> None:
    """Looking small ones up took a twentieth of a step."""
    if not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text():
        pytest.skip("the system has no large pages")
    assert measured[1] >= MEGABYTES / 2
