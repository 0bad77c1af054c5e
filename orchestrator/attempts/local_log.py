"""A process's output in a local file, and its way into the store in pieces.

The file outlives the process: what a crashed one wrote last, its traceback above all, is brought
in by the next process of ours on that machine (`salvage`).
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator.attempts.redaction import redacted, secret_values
from orchestrator.cluster.private_files import user_folder
from orchestrator.errors import StoreError
from orchestrator.store.numbered import NumberedFolder
from orchestrator.store.objects import ObjectStore

PIECE_BYTES = 256 * 1024

logger = logging.getLogger(__name__)


def local_root() -> Path:
    """Return this user's folder of local logs on this machine, made if absent.

    Raises:
        LocalFolderError: It cannot be made, or is somebody else's: what lies there is raw.
    """
    return user_folder("ddpmctl-logs")


@dataclass(frozen=True)
class Shipment:
    """The piece that was last sent on its way: bytes [start, end) under a number.

    Written down before the piece is put, so that whoever goes on after a crash sends exactly the
    same piece again, which the store then takes for the same.
    """

    store_address: str
    folder: str
    number: int = 0
    start: int = 0
    end: int = 0


class LocalLog:
    """The local file of one stream and how much of it is in the store.

    Args:
        folder: Its local folder.
        store: Where it goes to.
        shipment: The last piece.
    """

    def __init__(self, folder: Path, store: ObjectStore, shipment: Shipment) -> None:
        self.output = folder / "output.log"
        self._note = folder / "shipment.json"
        self._shipment = shipment
        self._pieces = NumberedFolder(store, shipment.folder, ".log")
        self._secrets = secret_values()
        self._is_sent = shipment.number == 0

    def lines(self, start: int, *, at_end: bool) -> bytes:
        """Return at most a piece of whole lines from `start` on; at the end, also a part of one.

        Holding back an unfinished line keeps a secret from slipping through in two halves.
        """
        with self.output.open("rb") as stream:
            stream.seek(start)
            data = stream.read(PIECE_BYTES)
        cut = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if cut == 0 and len(data) == PIECE_BYTES:
            cut = self._cut_outside_secrets(data)
        return data if at_end and len(data) < PIECE_BYTES else data[:cut]

    def _cut_outside_secrets(self, data: bytes) -> int:
        longest = max(map(len, self._secrets), default=1)
        cut = len(data) - longest + 1
        for secret in self._secrets:
            found = data.find(secret, max(0, cut - len(secret) + 1))
            if 0 <= found < cut:
                cut = found
        return cut

    def redacted(self, text: bytes) -> bytes:
        """Return a text without credentials."""
        return redacted(text, self._secrets)

    def ship(self, *, at_end: bool) -> None:
        """Bring what is new into the store.

        Raises:
            StoreError: The store failed; calling again goes on from there.
        """
        self._send()
        while text := self.lines(self._shipment.end, at_end=at_end):
            number = self._shipment.number or self._pieces.newest()
            self._shipment = replace(
                self._shipment,
                number=number + 1,
                start=self._shipment.end,
                end=self._shipment.end + len(text),
            )
            self._is_sent = False
            self.write_note()
            self._send()

    def _send(self) -> None:
        if self._is_sent:
            return
        with self.output.open("rb") as stream:
            stream.seek(self._shipment.start)
            text = stream.read(self._shipment.end - self._shipment.start)
        number = self._pieces.put(self._shipment.number, self.redacted(text))
        self._shipment = replace(self._shipment, number=number)
        self._is_sent = True

    def write_note(self) -> None:
        """Write down where the lines go, and how far they went."""
        part = self._note.with_suffix(".part")
        part.write_text(json.dumps(asdict(self._shipment)), encoding="utf-8")
        part.replace(self._note)


@contextmanager
def new_local_log(root: Path, store: ObjectStore, folder: str) -> Iterator[LocalLog]:
    """Make the local file of a stream, ours until the context or the process ends.

    Args:
        root: Folder of the local logs.
        store: Where it goes to.
        folder: Key of the stream's folder there.
    """
    part = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    with FileLock(part / "lock"):  # before the folder can be seen, or it would look abandoned
        local = root / part.name.removeprefix(".new-")
        part.rename(local)
        log = LocalLog(local, store, Shipment(store.address, folder))
        log.output.touch(mode=0o600)
        log.write_note()
        yield log


def discard(log: LocalLog) -> None:
    """Remove a local log that is wholly in the store."""
    shutil.rmtree(log.output.parent, ignore_errors=True)


def salvage(store: ObjectStore, root: Path | None = None) -> int:
    """Bring in what dead processes of this machine left behind, and return how many did.

    Raises:
        StoreError: The store failed; what is left stays for another time.
    """
    count = 0
    for local in sorted((root or local_root()).iterdir()):
        if not local.name.startswith("."):
            count += _salvage_one(store, local)
    return count


def _salvage_one(store: ObjectStore, local: Path) -> bool:
    try:
        with FileLock(local / "lock", blocking=False):
            blob = json.loads((local / "shipment.json").read_text(encoding="utf-8"))
            shipment = Shipment(**blob)
            if shipment.store_address != store.address:
                return False
            log = LocalLog(local, store, shipment)
            log.ship(at_end=True)
            discard(log)
            return True
    except Timeout:
        return False  # a living process holds it
    except (OSError, ValueError, TypeError) as error:
        logger.debug("%s is not a log to salvage: %s", local, error)
        return False


def try_salvage(store: ObjectStore, root: Path) -> None:
    """Salvage if the store answers; otherwise another process will."""
    try:
        salvage(store, root)
    except StoreError as error:
        logger.warning("logs of ended processes stay on this machine: %s", error)
