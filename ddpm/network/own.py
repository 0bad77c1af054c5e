"""Networks of other Python packages: how one is registered, and how it is found by its name.

A package names an `OwnNetwork` under the entry point group `ddpmctl.networks`:

    [project.entry-points."ddpmctl.networks"]
    dit = "my_package.dit:NETWORK"

It is found on every machine where the package is installed. Nothing but the name and plain values
travels: no code, no pickle. This module loads no torch; the package does.
"""

import dataclasses
import difflib
import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm.config import OWN_NETWORK, ConfigError, OwnConfig

if TYPE_CHECKING:
    from torch import nn

GROUP = "ddpmctl.networks"
_TAKEN = frozenset({OWN_NETWORK, "num_classes"})


@dataclass(frozen=True)
class NetworkShape:
    """What a network has to take and to give.

    Attributes:
        image_shape: (C, H, W) of x_t.
        out_channels: Channels of the output: C, or 2 C with a learned variance behind the
            prediction.
        num_classes: Classes of the labels, 0 for none. The label `num_classes` means no class, so
            an embedding needs `num_classes + 1` rows.
    """

    image_shape: tuple[int, int, int]
    out_channels: int
    num_classes: int


@dataclass(frozen=True)
class OwnNetwork:
    """A network as a package registers it.

    Attributes:
        config: A frozen dataclass of plain values (numbers, texts, truth values, None, and tuples
            of them), each with a default or not. It may raise `ddpm.config.ConfigError`.
        build: Takes one of those and a `NetworkShape`, and returns the network: its
            `forward(x_t, t, labels)` takes x_t: (B, C, H, W) float32, t: (B,) int64 in [0, T) and
            labels: (B,) int64 in [0, num_classes], or None without classes; it returns
            (B, out_channels, H, W). Weights are drawn from torch's generator, which is seeded.
    """

    config: type
    build: Callable[[Any, NetworkShape], "nn.Module"]


@dataclass(frozen=True, kw_only=True)
class NetworkIdentity:
    """What the numbers of another package's network depend on, besides its settings.

    Attributes:
        name: Of the network.
        package: That brings it; "" for none that an installer knows.
        version: Of the package.
        sha256: Over the names and contents of the package's Python files.
    """

    name: str
    package: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} of {self.package} {self.version} ({self.sha256[:12]})"


def installed_networks() -> list[str]:
    """Return the names of the networks that packages bring here."""
    return sorted(point.name for point in entry_points(group=GROUP))


def find_network(name: str) -> OwnNetwork:
    """Return the network that a package brings under a name.

    Raises:
        ConfigError: There is none, or the package does not bring what it should.
    """
    point = _entry_point(name)
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise _refused(name, f"one that loads ({point.value}: {error})") from error
    if not isinstance(found, OwnNetwork):
        message = f"an OwnNetwork, which {point.value} is not: it is of {type(found).__name__}"
        raise _refused(name, message)
    if not (isinstance(found.config, type) and dataclasses.is_dataclass(found.config)):
        raise _refused(name, f"one whose config is a dataclass, not {found.config!r}")
    taken = sorted(_TAKEN & {field.name for field in dataclasses.fields(found.config)})
    if taken:
        raise _refused(name, f"one whose config has no field {taken[0]}, which is ddpmctl's own")
    return found


def settings_of(config: OwnConfig) -> Any:
    """Return the package's own configuration of a network.

    Raises:
        ConfigError: A field is unknown, missing, or holds what it must not.
    """
    config_class = find_network(config.network).config
    known = {field.name for field in dataclasses.fields(config_class)}
    for name, value in config.settings.items():
        if name not in known:
            raise ConfigError(name, value, f"left out: {_nearest(name, known)}")
    values = {name: _tupled(value) for name, value in config.settings.items()}
    try:
        return config_class(**values)
    except TypeError as error:
        raise _refused(config.network, f"given its fields ({error})") from error


def full_settings(config: OwnConfig) -> OwnConfig:
    """Return a configuration in which each setting stands, defaults too. Raises: ConfigError."""
    return dataclasses.replace(config, settings=dataclasses.asdict(settings_of(config)))


def identity_of(name: str) -> NetworkIdentity:
    """Return what a network's numbers depend on.

    Raises:
        ConfigError: It is not installed here.
    """
    point = _entry_point(name)
    package = point.dist
    return NetworkIdentity(
        name=name,
        package=package.name if package else "",
        version=package.version if package else "",
        sha256=_sources_sha256(point.module.partition(".")[0]),
    )


def _entry_point(name: str) -> EntryPoint:
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise _refused(name, _known(installed_networks(), name))
    return next(iter(found))


def _refused(name: str, requirement: str) -> ConfigError:
    return ConfigError(OWN_NETWORK, name, requirement)


def _known(names: list[str], name: str) -> str:
    """Return which networks there are, the nearest if one is near."""
    if not names:
        return f"the name of a network that an installed package registers under {GROUP}"
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"one that is installed ({', '.join(near or names)})"


def _nearest(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"the network has {', '.join(sorted(known))}"


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def _sources_sha256(module: str) -> str:
    """Return the SHA-256 over the names and contents of a package's Python files."""
    spec = importlib.util.find_spec(module)
    roots = [] if spec is None else [Path(root) for root in spec.submodule_search_locations or ()]
    found = [(root, path) for root in roots for path in root.rglob("*.py")]
    files = {path.relative_to(root).as_posix(): path for root, path in found}
    if spec is not None and spec.origin and not roots:
        files = {Path(spec.origin).name: Path(spec.origin)}
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
