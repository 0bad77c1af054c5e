"""Checkpoints on the real store: large files in parts, and writers that race for one step."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.checkpoints.commit import CheckpointCommit
from orchestrator.stack.embedded import StackInfo
from orchestrator.store.keys import JobPaths
from orchestrator.store.numbered import NumberedFolder
from orchestrator.store.s3_store import S3Store, open_store

LARGE_BYTES = 20 * 1024**2  # uploaded in parts


@pytest.fixture
def store(stack_info: StackInfo) -> S3Store:
    """The session's real store."""
    return open_store(stack_info.environment["DDPMCTL_STORE"])


@pytest.fixture
def paths() -> JobPaths:
    """The keys of a job of this test alone."""
    return JobPaths(f"saved-{secrets.token_hex(4)}")


def written(folder: Path, body: bytes) -> Path:
    """Write a checkpoint's files into a new folder."""
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(body)
    (folder / "state.json").write_bytes(b"{}")
    return folder


def test_large_checkpoint_comes_back_byte_for_byte(
    store: S3Store, paths: JobPaths, tmp_path: Path
) -> None:
    """An upload in parts is reassembled by the store; our own hash says whether it is right."""
    body = secrets.token_bytes(LARGE_BYTES)
    checkpoints = CheckpointStore(store, paths)
    checkpoints.commit(1000, written(tmp_path / "large", body), 1, {})
    found = checkpoints.newest_whole(tmp_path / "cache", lambda step, why: None)
    assert found is not None
    assert (found.folder / "model.safetensors").read_bytes() == body


def test_one_of_several_writers_wins(store: S3Store, paths: JobPaths, tmp_path: Path) -> None:
    """Attempts that overlap after a partition agree on one checkpoint, and leave no litter."""

    def commit(attempt: int) -> CheckpointCommit:
        folder = written(tmp_path / str(attempt), f"attempt {attempt}".encode())
        return CheckpointStore(store, paths).commit(500, folder, attempt, {})

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(commit, range(1, 5)))
    assert len({result.attempt for result in results}) == 1
    (winner,) = CheckpointStore(store, paths).listing()
    assert winner == results[0]
    data = [info.key for info in store.list_objects(f"{paths.folder}attempts/")]
    assert data == sorted(winner.folder + file.name for file in winner.files)


def test_a_stream_is_read_on_from_any_place(store: S3Store, paths: JobPaths) -> None:
    """The server begins to list where it is told to, over the end of its first page too."""
    stream = NumberedFolder(store, paths.attempt(1).metrics, ".jsonl")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: stream.put(number, b"{}"), range(1, 1201)))
    for after in (0, 1, 999, 1000, 1001, 1199, 1200, 5000):
        assert stream.numbers(after) == list(range(after + 1, 1201))
