"""Checkpoints: whole or absent, whatever crashes, and never taken back by a latecomer."""

import functools
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.checkpoints.commit import CheckpointCommit
from orchestrator.artifacts.checkpoints.saver import BackgroundSaver
from orchestrator.errors import CheckpointError, StoreUnavailableError
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import StoredObject
from orchestrator.store.outages import Backoff
from tests.support.fakes import FaultyStore, MemoryStore

PATHS = JobPaths("digits-20261122-153012-k7q2")
QUICK = Backoff(first_s=0.001, longest_s=0.002, patience_s=5.0)
NAMES = ("ema.safetensors", "model.safetensors", "state.json")


@pytest.fixture
def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore()


def contents(step: int, writer: str = "a") -> dict[str, bytes]:
    """Return the files of a checkpoint, each with bytes of its own."""
    return {name: f"{name} of step {step} by {writer}".encode() * 50 for name in NAMES}


def written(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files into a new folder."""
    folder.mkdir(parents=True)
    for name, body in files.items():
        (folder / name).write_bytes(body)
    return folder


def commit(
    store: MemoryStore | FaultyStore, tmp_path: Path, step: int, attempt: int = 1, writer: str = "a"
) -> CheckpointCommit:
    """Commit a checkpoint from a fresh local folder."""
    folder = tmp_path / f"from-{step}-{attempt}-{writer}"
    if not folder.exists():
        written(folder, contents(step, writer))
    return CheckpointStore(store, PATHS).commit(step, folder, attempt, {"num_workers": 2})


def read_back(store: MemoryStore, cache: Path) -> tuple[int, dict[str, bytes], list[int]]:
    """Return step and files of the newest whole checkpoint, and the steps that were skipped."""
    skipped: list[int] = []
    found = CheckpointStore(store, PATHS).newest_whole(
        cache, lambda step, why: skipped.append(step)
    )
    if found is None:
        return 0, {}, skipped
    files = {path.name: path.read_bytes() for path in found.folder.iterdir()}
    return found.commit.step, files, skipped


def data_keys(store: MemoryStore) -> set[str]:
    """Return the keys of all data objects."""
    return {key for key in store.objects if "/data/" in key}


def committed_keys(store: MemoryStore) -> set[str]:
    """Return the keys that the commits name."""
    commits = CheckpointStore(store, PATHS).listing()
    return {commit.folder + file.name for commit in commits for file in commit.files}


def test_committed_checkpoint_comes_back_byte_for_byte(store: MemoryStore, tmp_path: Path) -> None:
    """The plain path: the newest one, with what the writer said about it."""
    commit(store, tmp_path, 500)
    made = commit(store, tmp_path, 1000)
    assert read_back(store, tmp_path / "cache") == (1000, contents(1000), [])
    found = CheckpointStore(store, PATHS).find(1000)
    assert found == made
    assert found.extra == {"num_workers": 2}
    assert found.size_bytes == sum(map(len, contents(1000).values()))


def test_job_without_checkpoint_has_none(store: MemoryStore, tmp_path: Path) -> None:
    """A first attempt starts from nothing, and that is no error."""
    assert read_back(store, tmp_path / "cache") == (0, {}, [])
    assert CheckpointStore(store, PATHS).find(500) is None


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fail_at", range(1, 5))
def test_writer_that_dies_leaves_the_old_or_the_new_checkpoint(
    store: MemoryStore, tmp_path: Path, fail_at: int, after: bool
) -> None:
    """Between any two operations on the store, readers see one whole checkpoint."""
    commit(store, tmp_path, 500)
    with pytest.raises(StoreUnavailableError):
        commit(FaultyStore(store, fail_at, after=after, dead=True), tmp_path, 1000)
    step, files, skipped = read_back(store, tmp_path / "cache")
    assert (step, skipped) == (1000 if fail_at == 4 and after else 500, [])
    assert files == contents(step)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fail_at", range(1, 5))
def test_commit_repeated_after_an_outage_is_one_commit(
    store: MemoryStore, tmp_path: Path, fail_at: int, after: bool
) -> None:
    """A lost answer leaves open whether the put happened; trying again must not lose or double."""
    faulty = FaultyStore(store, fail_at, after=after)
    with pytest.raises(StoreUnavailableError):
        commit(faulty, tmp_path, 500)
    made = commit(faulty, tmp_path, 500)
    assert made.attempt == 1
    assert read_back(store, tmp_path / "cache") == (500, contents(500), [])
    assert data_keys(store) == committed_keys(store)


def test_latecomer_takes_the_winners_checkpoint(store: MemoryStore, tmp_path: Path) -> None:
    """An old attempt that wakes up changes nothing committed and leaves no litter."""
    winner = commit(store, tmp_path, 500, attempt=2, writer="new")
    before = dict(store.objects)
    assert commit(store, tmp_path, 500, attempt=1, writer="old") == winner
    assert store.objects == before


def test_damaged_winner_is_replaced(store: MemoryStore, tmp_path: Path) -> None:
    """Otherwise a job whose last checkpoint rotted could never have a good one at that step."""
    rotten = commit(store, tmp_path, 500)
    store.put(rotten.folder + "state.json", b"rotten")
    assert commit(store, tmp_path, 500, attempt=2, writer="b").attempt == 2
    assert read_back(store, tmp_path / "cache") == (500, contents(500, "b"), [])


def _remove(store: MemoryStore, commit: CheckpointCommit) -> None:
    store.delete(commit.folder + "model.safetensors")


def _truncate(store: MemoryStore, commit: CheckpointCommit) -> None:
    key = commit.folder + "model.safetensors"
    store.put(key, store.get(key).body[:-1])


def _flip(store: MemoryStore, commit: CheckpointCommit) -> None:
    key = commit.folder + "ema.safetensors"
    body = bytearray(store.get(key).body)
    body[7] ^= 1
    store.put(key, bytes(body))


def _garble(store: MemoryStore, commit: CheckpointCommit) -> None:
    store.put(PATHS.checkpoint(commit.step), b'{"step": 1000, "files')


def _change(store: MemoryStore, commit: CheckpointCommit, **values: object) -> None:
    key = PATHS.checkpoint(commit.step)
    blob = json.loads(store.get(key).body)
    store.put(key, json.dumps(blob | values).encode())


def _from_the_future(store: MemoryStore, commit: CheckpointCommit) -> None:
    _change(store, commit, format_version=99)


def _with_escaping_name(store: MemoryStore, commit: CheckpointCommit) -> None:
    _change(store, commit, files=[{"name": "../../x", "size_bytes": 1, "sha256": "0"}])


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (_remove, "is missing"),
        (_truncate, "bytes instead of"),
        (_flip, "SHA-256"),
        (_garble, "cannot be read"),
        (_from_the_future, "a newer version wrote it"),
        (_with_escaping_name, "outside its folder"),
    ],
)
def test_damaged_checkpoint_is_skipped_with_the_reason(
    store: MemoryStore,
    tmp_path: Path,
    damage: Callable[[MemoryStore, CheckpointCommit], object],
    why: str,
) -> None:
    """Training goes on from the newest good one, and the event can say what was wrong."""
    commit(store, tmp_path, 500)
    damaged = commit(store, tmp_path, 1000)
    damage(store, damaged)
    said: list[tuple[int, str]] = []
    found = CheckpointStore(store, PATHS).newest_whole(
        tmp_path / "cache", lambda step, text: said.append((step, text))
    )
    assert found is not None
    assert found.commit.step == 500
    assert [step for step, _ in said] == [1000]
    assert why in said[0][1]


def _note(said: list[tuple[int, str]], step: int, why: str) -> None:
    said.append((step, why))


def test_outage_is_not_taken_for_damage(store: MemoryStore, tmp_path: Path) -> None:
    """Falling back to an old checkpoint since the network hiccuped would throw work away."""
    commit(store, tmp_path, 500)
    commit(store, tmp_path, 1000)
    for fail_at in range(1, 6):
        faulty = FaultyStore(store, fail_at, dead=True)
        skipped: list[tuple[int, str]] = []
        with pytest.raises(StoreUnavailableError):
            CheckpointStore(faulty, PATHS).newest_whole(
                tmp_path / "cache", functools.partial(_note, skipped)
            )
        assert skipped == []


def test_a_save_reads_no_commit_again(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that saves every few seconds would spend them on it."""
    saver, read = CheckpointStore(store, PATHS), list[str]()
    get = store.get

    def noted(key: str) -> StoredObject:
        read.append(key)
        return get(key)

    monkeypatch.setattr(store, "get", noted)
    commit(store, tmp_path, 500)
    for step in (1000, 1500):
        folder = written(tmp_path / f"saved-{step}", contents(step))
        saver.commit(step, folder, 1, {})
        assert saver.retain(3) == []
    assert read == [PATHS.checkpoint(500)]
    assert [made.step for made in saver.listing()] == [500, 1000, 1500]


def test_a_commit_that_was_replaced_is_read_anew(store: MemoryStore, tmp_path: Path) -> None:
    """The one before it names data that are gone."""
    rotten = commit(store, tmp_path, 500)
    saver = CheckpointStore(store, PATHS)
    assert saver.listing() == [rotten]
    store.put(rotten.folder + "state.json", b"rotten")
    mended = commit(store, tmp_path, 500, attempt=2, writer="b")
    assert saver.listing() == [mended]


def test_retention_counts_no_checkpoint_without_data_of_any_attempt(
    store: MemoryStore, tmp_path: Path
) -> None:
    """The older attempt's is the only one to go on from."""
    kept = commit(store, tmp_path, 500)
    lost = commit(store, tmp_path, 1000, attempt=2)
    store.delete(lost.folder + "model.safetensors")
    assert CheckpointStore(store, PATHS).retain(1) == []
    whole = commit(store, tmp_path, 1500, attempt=2)
    assert CheckpointStore(store, PATHS).retain(1) == [kept.step, lost.step]
    assert data_keys(store) == {whole.folder + name for name in NAMES}


def test_workers_of_a_machine_download_once(store: MemoryStore, tmp_path: Path) -> None:
    """Eight ranks that start at once must not fetch a gigabyte eight times."""
    made = commit(store, tmp_path, 500)
    counting = FaultyStore(store, 0)
    checkpoints = CheckpointStore(counting, PATHS)
    with ThreadPoolExecutor(8) as pool:
        fetched = list(pool.map(lambda _: checkpoints.fetch(made, tmp_path / "cache"), range(8)))
    assert counting.num_calls == len(NAMES)
    assert len({local.folder for local in fetched}) == 1
    assert not list((tmp_path / "cache").glob("part-*"))


def test_damaged_download_leaves_nothing_in_the_cache(store: MemoryStore, tmp_path: Path) -> None:
    """A folder in the cache counts as verified, so a bad one must never appear there."""
    made = commit(store, tmp_path, 500)
    _flip(store, made)
    with pytest.raises(CheckpointError, match="SHA-256"):
        CheckpointStore(store, PATHS).fetch(made, tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_retention_keeps_the_newest_and_the_referenced(store: MemoryStore, tmp_path: Path) -> None:
    """Space is won from old checkpoints alone, commit object and data alike."""
    for step in range(100, 700, 100):
        commit(store, tmp_path, step)
    checkpoints = CheckpointStore(store, PATHS)
    checkpoints.refer(200, "set-a")
    assert checkpoints.retain(2) == [100, 300, 400]
    assert checkpoints.steps() == [200, 500, 600]
    assert data_keys(store) == committed_keys(store)


def test_retention_never_deletes_the_last_good_one(store: MemoryStore, tmp_path: Path) -> None:
    """Torn newer ones do not count among those that are kept, or nothing good would be left."""
    for step in (100, 200, 300):
        made = commit(store, tmp_path, step)
        if step > 100:
            _remove(store, made)
    checkpoints = CheckpointStore(store, PATHS)
    assert checkpoints.retain(0) == []
    assert read_back(store, tmp_path / "cache")[0] == 100


@pytest.mark.parametrize("fail_at", range(1, 19))
def test_retention_that_dies_leaves_only_whole_checkpoints(
    store: MemoryStore, tmp_path: Path, fail_at: int
) -> None:
    """The commit object goes first: a checkpoint without its data must never be offered."""
    for step in (100, 200, 300):
        commit(store, tmp_path, step)
    faulty = FaultyStore(store, fail_at, dead=True)
    try:
        CheckpointStore(faulty, PATHS).retain(1)
    except StoreUnavailableError:
        assert committed_keys(store) <= data_keys(store)
    assert read_back(store, tmp_path / "cache") == (300, contents(300), [])


def test_saver_commits_in_the_background(store: MemoryStore, tmp_path: Path) -> None:
    """Metrics go into the store before the commit, retention runs after it, all on its thread."""
    order: list[tuple[str, bool]] = []

    def note(what: str) -> None:
        order.append((what, threading.current_thread() is threading.main_thread()))

    def write(folder: Path) -> None:
        note("write")
        (folder / "state.json").write_bytes(b"{}")

    with BackgroundSaver(
        CheckpointStore(store, PATHS),
        1,
        before_commit=lambda: note(f"before {len(store.objects)}"),
        after_commit=lambda commit: note(f"after {commit.step}"),
    ) as saver:
        assert saver.wait() is None
        saver.submit(500, write, {"seed": 0})
        made = saver.wait()
        assert made == CheckpointStore(store, PATHS).find(500)
    assert order == [("write", False), ("before 0", False), ("after 500", False)]


def test_saver_has_one_save_in_flight(store: MemoryStore) -> None:
    """A store slower than the training must not pile up copies of the weights."""
    running, release = threading.Event(), threading.Event()

    def slow(folder: Path) -> None:
        (folder / "state.json").write_bytes(b"{}")
        running.set()
        assert release.wait(10)

    def quick(folder: Path) -> None:
        assert CheckpointStore(store, PATHS).steps() == [1]
        (folder / "state.json").write_bytes(b"{}")

    with BackgroundSaver(CheckpointStore(store, PATHS), 1) as saver:
        saver.submit(1, slow)
        assert running.wait(10)
        assert saver.busy
        threading.Timer(0.05, release.set).start()
        saver.submit(2, quick)
    assert CheckpointStore(store, PATHS).steps() == [1, 2]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fail_at", range(1, 4))
def test_outage_delays_a_save_and_does_not_fail_it(
    store: MemoryStore, tmp_path: Path, fail_at: int, after: bool
) -> None:
    """An upload that hiccups must not end hours of training."""
    faulty = FaultyStore(store, fail_at, after=after)
    with BackgroundSaver(CheckpointStore(faulty, PATHS), 1, backoff=QUICK) as saver:
        saver.submit(500, lambda folder: (folder / "state.json").write_bytes(b"{}"))
    assert read_back(store, tmp_path / "cache") == (500, {"state.json": b"{}"}, [])


def test_long_outage_surfaces_at_the_next_submit(store: MemoryStore) -> None:
    """The training has to know that its work is not safe, at a place where it can end well."""
    dead = FaultyStore(store, 1, dead=True)
    impatient = Backoff(first_s=0.001, longest_s=0.002, patience_s=0.02)
    saver = BackgroundSaver(CheckpointStore(dead, PATHS), 1, backoff=impatient)
    saver.submit(500, lambda folder: (folder / "state.json").write_bytes(b"{}"))
    with pytest.raises(StoreUnavailableError):
        saver.submit(1000, lambda folder: None)
    assert saver.wait() is None
    saver.close()


def test_saver_that_is_abandoned_does_not_wait_out_an_outage(store: MemoryStore) -> None:
    """A worker that ends on an error must end, not sit on a dead store for ten minutes."""
    dead = FaultyStore(store, 1, dead=True)

    def train() -> None:
        with BackgroundSaver(CheckpointStore(dead, PATHS), 1) as saver:
            saver.submit(500, lambda folder: (folder / "state.json").write_bytes(b"{}"))
            raise RuntimeError("user code")

    with pytest.raises(RuntimeError, match="user code"):
        train()
