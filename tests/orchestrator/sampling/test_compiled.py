"""With a compiled network, too, an image has the same bits on any worker and after any restart."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm.compute import compile_obstacle
from orchestrator.artifacts.samples.manifest import SetHash
from orchestrator.artifacts.samples.shards import SampleShards
from orchestrator.store.keys import JobPaths
from tests.support.compiled_worker import PLAN, FolderStore, put_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        compile_obstacle("cpu") is not None, reason=f"no compiler: {compile_obstacle('cpu')}"
    ),
]
ROOT = Path(__file__).resolve().parents[3]


def work(store: Path, cache: Path, *orders: str) -> list[str]:
    """Run one worker's process on a machine whose compiler's cache is in a folder."""
    cache.mkdir(exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TORCHINDUCTOR_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.compiled_worker", str(store), *orders],
        cwd=ROOT,
        env={**kept, "TMPDIR": str(cache), "TORCHINDUCTOR_COMPILE_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def kernels(cache: Path) -> set[Path]:
    """Return what was compiled there."""
    return set(cache.rglob("*.so"))


def set_sha256(store: FolderStore, job_id: str) -> str:
    """Return the hash over the pixels of a whole set."""
    shards, set_hash = SampleShards(store, JobPaths(job_id)), SetHash()
    for shard in PLAN:
        commit = shards.find(shard.index)
        assert commit is not None, shard
        set_hash.add(shards.read(commit))
    return set_hash.hexdigest


def test_compiled_sets_are_equal_on_one_and_three_workers_and_over_a_restart(
    tmp_path: Path,
) -> None:
    """The compiler's kernels are part of what fixes the bits, so the decision is made once."""
    store, machine = tmp_path / "store", tmp_path / "machine"
    for folder in (store, tmp_path / "model"):
        folder.mkdir()
    put_model(FolderStore(store), tmp_path / "model")
    work(store, machine, "one", "0", "1", "2")
    compiled = kernels(machine)
    assert compiled
    assert work(store, machine, "three", "0", "1:7") == ["0 committed 10", "1 halved 7"]
    assert work(store, machine, "three", "1") == ["1 committed 3"]
    assert work(store, machine, "three", "2") == ["2 committed 10"]
    assert kernels(machine) == compiled  # compiled once on this machine
    whole = FolderStore(store)
    assert set_sha256(whole, "three") == set_sha256(whole, "one")
