"""What a worker of a preparation does: reads and decodes the pictures of a unit, and commits."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Self

from numpy.typing import NDArray

from orchestrator.artifacts.datasets.cutting import Plan
from orchestrator.artifacts.datasets.damages import Damage
from orchestrator.artifacts.datasets.ingest import open_any, scratch_folder
from orchestrator.artifacts.datasets.opened import Source
from orchestrator.artifacts.datasets.preparing import Preparation
from orchestrator.artifacts.datasets.reading import Reading, decoder_versions
from orchestrator.artifacts.datasets.shared_listing import shared_source
from orchestrator.cluster.cache import cache_folder
from orchestrator.errors import BadInputError, DatasetError
from orchestrator.fleet.work import ShardEvent, ShardTask, Watch
from orchestrator.jobs.decisions import Decisions
from orchestrator.store.keys import PreparationPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.store.outages import Backoff, outlast_outage
from orchestrator.store.s3_store import open_bucket, open_store


@dataclass(frozen=True, kw_only=True)
class PrepareSetup:
    """What a worker needs to know to prepare a part of a source.

    Attributes:
        store_uri: The store.
        source: The source, as the job has it.
        reading: What the images are to become.
        plan: How the source is cut.
        preparation: The preparation's name.
        decoders: The versions of the libraries that decode.
        cpus: Threads of the worker.
    """

    store_uri: str
    source: str
    reading: Reading
    plan: Plan
    preparation: str
    decoders: dict[str, str]
    cpus: int

    def open(self, worker: str, decisions: Decisions | None) -> "PrepareWorker":
        """Return what prepares units. Raises: as of `PrepareWorker`."""
        del worker, decisions
        return PrepareWorker(open_store(self.store_uri), self)


@dataclass(frozen=True, kw_only=True)
class PreparedUnit:
    """A unit that is read and not committed.

    Attributes:
        images: (n, H, W, C); None where not one can be read.
        damages: What can't be read.
        notes: What was done to images that their owner should know.
    """

    images: NDArray[Any] | None
    damages: list[Damage]
    notes: Counter[str]


class _UnitGivenUpError(Exception):
    """The worker was told to stop, or another one has committed the unit."""


class PrepareWorker:
    """Prepares units of one source, which it opens as the driver found it.

    How the source is cut, the setup says: there is nothing to decide and to take.

    Args:
        store: Where the units go.
        setup: What the driver found.

    Attributes:
        proposal: Nothing.
        remarks: None.

    Raises:
        BadInputError: Other versions decode here, or this machine does not see the source.
    """

    proposal = Decisions()
    remarks: Sequence[str] = ()

    def __init__(self, store: ObjectStore, setup: PrepareSetup) -> None:
        self._store = store
        self._setup = setup
        self._abandon = threading.Event()
        self._scratch = ExitStack()
        _check_decoders(setup.decoders)
        with _naming_host():
            source = outlast_outage(self._source, Backoff(), self._abandon)
        self._preparation = Preparation(
            source, setup.reading, self._store, plan=setup.plan, num_threads=setup.cpus
        )
        if self._preparation.paths.preparation != setup.preparation:
            raise BadInputError(f"{source.name} was changed while it was read; submit again")

    def _shared_source(self) -> Source | None:
        """Return the source that the driver listed. Raises: DatasetError, it is out of reach."""
        paths = PreparationPaths(self._setup.preparation)
        return shared_source(self._store, paths, open_bucket)

    def _source(self) -> Source:
        source = self._shared_source()
        if source is not None:
            return source
        scratch = self._scratch.enter_context(scratch_folder(cache_folder("datasets")))
        return open_any(self._setup.source, self._store, scratch)

    def begin(self, decisions: Decisions) -> Self:
        """Return what prepares units: this."""
        del decisions
        return self

    def compute(self, task: ShardTask, watch: Watch) -> PreparedUnit | None:
        """Return a unit's images; None if the worker was told to stop or to drop it.

        Raises:
            BadInputError: This machine does not see the source any more.
            DatasetError: An image does not fit the others, or an array is damaged.
        """
        unit = task.shard.index

        def progress(done: int) -> None:
            watch.show(unit, done)  # without a total, which would be shown as reverse steps
            if watch.is_stopped or watch.is_dropped(unit):
                raise _UnitGivenUpError

        try:
            progress(0)
            images, damages, notes = outlast_outage(
                lambda: self._preparation.read_unit(unit, progress), Backoff(), self._abandon
            )
        except _UnitGivenUpError:
            return None
        if damages:  # by themselves, or since the folder is gone from this machine?
            with _naming_host():
                outlast_outage(self._shared_source, Backoff(), self._abandon)
        return PreparedUnit(images=images, damages=damages, notes=notes)

    def keep(self, task: ShardTask, result: PreparedUnit | None) -> ShardEvent:
        """Commit a unit."""
        unit = task.shard.index
        if result is None:
            return ShardEvent(index=unit, kind="halved")
        standing, is_own = outlast_outage(
            lambda: self._preparation.commit_unit(
                unit, result.images, result.damages, result.notes
            ),
            Backoff(),
            self._abandon,
        )
        del standing
        return ShardEvent(index=unit, kind="committed", is_own=is_own)


@contextmanager
def _naming_host() -> Iterator[None]:
    """Say of a source that cannot be read on which machine that is so: it is no damage of it."""
    try:
        yield
    except DatasetError as error:
        raise BadInputError(f"{socket.gethostname()}: {error}; all nodes must see it") from error


def _check_decoders(wanted: dict[str, str]) -> None:
    """Raise BadInputError where other versions decode than where the preparation began."""
    found = decoder_versions()
    differing = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
    if differing:
        message = ", ".join(
            f"{name} {found.get(name, 'missing')} here and {wanted.get(name, 'missing')} there"
            for name in differing
        )
        raise BadInputError(
            f"{socket.gethostname()} decodes with other versions than the node that began "
            f"({message}), which may give other pixels; install the same on all nodes"
        )
