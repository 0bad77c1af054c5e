"""What the embedded stack keeps in its folder: secrets, ports and whom it started."""

import hashlib
import json
import os
import secrets
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.cluster.private_files import make_private_folder, write_private
from orchestrator.cluster.process_identity import ProcessIdentity
from orchestrator.errors import StackError
from orchestrator.stack.certificates import KEY_FILE, write_certificates

_FORMAT_VERSION = 1


@dataclass(frozen=True)
class StackFolder:
    """The paths below one stack's folder.

    Attributes:
        root: The folder itself, absolute; usually `.ddpmctl` of a project.
    """

    root: Path

    @property
    def lock(self) -> Path:
        """Held while a command starts or stops parts."""
        return self.root / "lock"

    @property
    def state(self) -> Path:
        """Ports and processes: a `StackState`."""
        return self.root / "stack.json"

    @property
    def logs(self) -> Path:
        """What the parts print."""
        return self.root / "logs"

    @property
    def secrets(self) -> Path:
        """Credentials and certificates."""
        return self.root / "secrets"

    @property
    def ray_token(self) -> Path:
        """The token that Ray asks for, as a file of its own."""
        return self.secrets / "ray-token"

    @property
    def store(self) -> Path:
        """The objects."""
        return self.root / "store"

    @property
    def mlflow(self) -> Path:
        """The data base of MLflow."""
        return self.root / "mlflow"

    @property
    def sockets(self) -> Path:
        """Ray's sessions and Unix sockets, whose paths may have 107 bytes at most."""
        short = Path("/tmp")  # noqa: S108  (a folder of mode 0700 is made in it)
        place = short if os.access(short, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:10]
        return place / f"ddpmctl-{os.getuid()}-{digest}"

    def make(self) -> None:
        """Make the folders. Raises: StackError."""
        for folder in (self.root, self.logs, self.secrets, self.store, self.mlflow, self.sockets):
            make_private_folder(folder)


@dataclass(frozen=True)
class StackSecrets:
    """What the parts of one stack ask of whoever calls them.

    Attributes:
        access_key_id: Of the store.
        secret_access_key: Of the store.
        store_keys: Signing keys of the store's parts among themselves, by environment variable.
        ray_token: Of Ray's dashboard, Jobs API and gRPC.
        mlflow_token: Of the MLflow server.
    """

    access_key_id: str
    secret_access_key: str
    store_keys: dict[str, str]
    ray_token: str
    mlflow_token: str


_STORE_KEY_NAMES = (
    "WEED_JWT_SIGNING_KEY",
    "WEED_JWT_SIGNING_READ_KEY",
    "WEED_JWT_FILER_SIGNING_KEY",
    "WEED_JWT_FILER_SIGNING_READ_KEY",
)


def load_secrets(folder: StackFolder) -> StackSecrets:
    """Return the secrets of a stack, made at the first call.

    Raises:
        StackError: They cannot be read or written.
    """
    path = folder.secrets / "secrets.json"
    if not path.exists():
        fresh = StackSecrets(
            access_key_id=f"ddpmctl{secrets.token_hex(6)}",
            secret_access_key=secrets.token_hex(24),
            store_keys={name: secrets.token_hex(32) for name in _STORE_KEY_NAMES},
            ray_token=secrets.token_hex(32),
            mlflow_token=secrets.token_hex(24),
        )
        write_private(path, json.dumps(asdict(fresh), indent=1).encode())
    if not (folder.secrets / KEY_FILE).exists():
        write_certificates(folder.secrets)
    try:
        loaded = StackSecrets(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise StackError(f"cannot read {path}: {error}; remove it to have a new one") from error
    if not folder.ray_token.exists():
        write_private(folder.ray_token, loaded.ray_token.encode())
    return loaded


@dataclass
class StackState:
    """What a stack remembers from one command to the next.

    Attributes:
        ports: By name, the ports that the parts listen on.
        leaders: By part, the process that `up` started.
        settings: By part, a digest of what it was started with.
    """

    ports: dict[str, int] = field(default_factory=dict)
    leaders: dict[str, ProcessIdentity] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)


def load_state(folder: StackFolder) -> StackState:
    """Return what a stack remembers: nothing, where its file is missing or damaged.

    Processes that a lost file named are still found by their mark.
    """
    try:
        stored: dict[str, Any] = json.loads(folder.state.read_bytes())
        return StackState(
            ports={str(name): int(port) for name, port in stored["ports"].items()},
            leaders={name: ProcessIdentity(**one) for name, one in stored["leaders"].items()},
            settings={str(name): str(digest) for name, digest in stored["settings"].items()},
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return StackState()


def save_state(folder: StackFolder, state: StackState) -> None:
    """Remember. Raises: StackError."""
    document = {"format_version": _FORMAT_VERSION, **asdict(state)}
    write_private(folder.state, json.dumps(document, indent=1).encode())
