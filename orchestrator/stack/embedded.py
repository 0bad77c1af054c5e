"""The embedded stack: a store, a Ray head and an MLflow server on this machine's loopback.

`up` starts what does not run and leaves alone what does; `down` ends exactly what `up` started.
Data, ports and secrets stay in the folder from one time to the next.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import StackError
from orchestrator.stack.files import StackFolder, StackSecrets, StackState, load_secrets, load_state
from orchestrator.stack.folder_lock import is_locked, locked
from orchestrator.stack.launch import Launcher, PortTakenError, Progress
from orchestrator.stack.limits import allow_open_files, allow_processes
from orchestrator.stack.mlflow_server import MLFLOW_PORTS, mlflow_access, mlflow_part, mlflow_url
from orchestrator.stack.parts import REGION, STORE_URI, Part, http_get, without_proxy
from orchestrator.stack.ports import choose_ports
from orchestrator.stack.ray_head import RAY_PORTS, ray_access, ray_part, ray_url
from orchestrator.stack.seaweed import STORE_PORTS, store_part, store_url

_PORTS_OF = {"store": STORE_PORTS, "ray": RAY_PORTS, "mlflow": MLFLOW_PORTS}
_PORT_TRIES = 3
_FREE_BYTES = 500 * 1024**2
_FREE_BYTES_FOR_RAY = 100 * 1024**2


@dataclass(frozen=True)
class StackInfo:
    """How a stack is reached.

    Attributes:
        folder: Where it lives.
        environment: The variables that make the clients of a process use it.
        store_url: The S3 endpoint.
        ray_url: Ray's dashboard; it asks for the token in `ray_token_file`.
        ray_token_file: Where that token is.
        mlflow_url: The MLflow page, with the token that a browser needs once.
        started: The parts that this `up` started; none, if all were running.
    """

    folder: Path
    environment: Mapping[str, str]
    store_url: str
    ray_url: str
    ray_token_file: Path
    mlflow_url: str
    started: tuple[str, ...] = ()


@dataclass(frozen=True)
class PartStatus:
    """One part as it is now.

    Attributes:
        name: `store`, `ray` or `mlflow`.
        pid: The process that `up` started, if it is alive.
    """

    name: str
    pid: int | None

    @property
    def is_running(self) -> bool:
        """Whether its process is alive."""
        return self.pid is not None


class Stack:
    """The embedded stack of one folder.

    Args:
        folder: Where data, logs, secrets and ports are kept.
        num_cpus: Logical CPUs of the Ray head; as many as there are, if None.
        num_gpus: Logical GPUs of the Ray head; as many as there are, if None.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_cpus: int | None = None,
        num_gpus: int | None = None,
    ) -> None:
        self._folder = StackFolder(folder.resolve())
        self._num_cpus = num_cpus
        self._num_gpus = num_gpus

    def up(self, on_progress: Progress = lambda _: None) -> StackInfo:
        """Start every part that does not run, and wait until all do their work.

        If one fails, those that this call started are ended again.

        Args:
            on_progress: Called with a line for each thing that happens.

        Raises:
            StackError: A part does not start, or the folder cannot be used.
        """
        self._folder.make()
        self._check_space()
        allow_open_files()
        allow_processes()
        with locked(self._folder.lock, on_progress):
            secrets = load_secrets(self._folder)
            state = load_state(self._folder)
            for _ in range(_PORT_TRIES):
                launcher = Launcher(self._folder, state, on_progress)
                _choose_ports(state)
                try:
                    started = _bring_up(launcher, self._parts(secrets, state.ports))
                except PortTakenError as error:
                    on_progress(str(error))
                    continue
                return self._info(secrets, state, started)
        raise StackError("ports were taken each time before a part could listen; try again")

    def down(self, on_progress: Progress = lambda _: None) -> tuple[str, ...]:
        """End what `up` started, and return the names of the parts that ran. The data stay.

        Raises:
            StackError: A process does not end.
        """
        if not self._folder.root.is_dir():
            return ()
        with locked(self._folder.lock, on_progress):
            launcher = Launcher(self._folder, load_state(self._folder), on_progress)
            # Ray first: what runs on it may still write to the others.
            ended = {"ray": launcher.end("ray")}
            with ThreadPoolExecutor() as pool:
                others = ("store", "mlflow")
                ended.update(zip(others, pool.map(launcher.end, others), strict=True))
            return tuple(name for name in _PORTS_OF if ended[name])

    def status(self) -> tuple[PartStatus, ...]:
        """Return which parts run; they are looked for, not asked."""
        leaders = load_state(self._folder).leaders
        alive = {name: one.pid for name, one in leaders.items() if one.find() is not None}
        return tuple(PartStatus(name, alive.get(name)) for name in _PORTS_OF)

    def has_store(self, on_progress: Progress = lambda _: None) -> bool:
        """Tell whether the store answers; one that a running `up` starts is waited for."""
        if self._store_answers():
            return True
        if not self._folder.lock.exists():
            return False
        with locked(self._folder.lock, on_progress):
            return self._store_answers()

    def is_settled(self) -> bool:
        """Tell whether all parts run and no other command starts or ends any."""
        return all(part.is_running for part in self.status()) and not is_locked(self._folder.lock)

    def _store_answers(self) -> bool:
        store, *_ = self.status()
        port = load_state(self._folder).ports.get("store.s3")
        return store.is_running and port is not None and http_get(port, "/")[0] != 0

    def info(self) -> StackInfo | None:
        """Return how the stack is reached, or None if it was never started here."""
        state = load_state(self._folder)
        if not {name for names in _PORTS_OF.values() for name in names} <= state.ports.keys():
            return None
        return self._info(load_secrets(self._folder), state, ())

    def _parts(self, secrets: StackSecrets, ports: Mapping[str, int]) -> list[Part]:
        store = store_access(secrets, ports)
        sizes = {"num_cpus": self._num_cpus, "num_gpus": self._num_gpus}
        shared = {**store, **mlflow_access(secrets, ports)}
        return [
            store_part(self._folder, secrets, ports),
            ray_part(self._folder, secrets, ports, shared, **sizes),
            mlflow_part(self._folder, secrets, ports, store),
        ]

    def _info(
        self, secrets: StackSecrets, state: StackState, started: tuple[str, ...]
    ) -> StackInfo:
        ports = state.ports
        return StackInfo(
            folder=self._folder.root,
            environment={
                **store_access(secrets, ports),
                **mlflow_access(secrets, ports),
                **ray_access(self._folder, ports),
            },
            store_url=store_url(ports),
            ray_url=ray_url(ports),
            ray_token_file=self._folder.ray_token,
            mlflow_url=f"{mlflow_url(ports)}/?token={secrets.mlflow_token}",
            started=started,
        )

    def _check_space(self) -> None:
        """Ask for room before anything starts: without any, Ray's head hangs for minutes."""
        needed = {
            self._folder.root: ("the store", _FREE_BYTES),
            self._folder.sockets: ("Ray", _FREE_BYTES_FOR_RAY),
        }
        for place, (who, least) in needed.items():
            free = shutil.disk_usage(place).free
            if free < least:
                raise StackError(
                    f"{place} has {free // 1024**2} MiB free, and {who} needs at least "
                    f"{least // 1024**2} MiB there: make room on that file system"
                )


def _bring_up(launcher: Launcher, parts: Sequence[Part]) -> tuple[str, ...]:
    """Bring all parts up, side by side, and return the names of those that were started."""
    with ThreadPoolExecutor(len(parts)) as pool, ExitStack() as undo:
        futures = {part.name: pool.submit(launcher.bring_up, part) for part in parts}
        undo.callback(_abandon, launcher, futures)
        was_started = {name: future.result() for name, future in futures.items()}
        undo.pop_all()
    return tuple(name for name, started in was_started.items() if started)


def _abandon(launcher: Launcher, futures: Mapping[str, Future[bool]]) -> None:
    """After an error or Ctrl-C, wait for nothing more and end what was started."""
    launcher.stop()
    for name, future in futures.items():
        if future.exception() is None and future.result():
            launcher.end(name)


def _choose_ports(state: StackState) -> None:
    """Fill in the ports: those of a running part stay, others stay if they are free."""
    for part, names in _PORTS_OF.items():
        leader = state.leaders.get(part)
        is_known = all(name in state.ports for name in names)
        if leader is None or leader.find() is None or not is_known:
            others = {name: port for name, port in state.ports.items() if name not in names}
            mine = {name: state.ports[name] for name in names if name in state.ports}
            state.ports.update(choose_ports(names, mine, others.values()))


def store_access(secrets: StackSecrets, ports: Mapping[str, int]) -> dict[str, str]:
    """Return the environment in which a process reaches the stack's store."""
    return {
        "DDPMCTL_STORE": STORE_URI,
        "AWS_ENDPOINT_URL_S3": store_url(ports),
        "AWS_ACCESS_KEY_ID": secrets.access_key_id,
        "AWS_SECRET_ACCESS_KEY": secrets.secret_access_key,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        # What stands in the user's own files is about other stores, or broken.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        **without_proxy(os.environ),
    }
