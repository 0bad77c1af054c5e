"""Which code of another package computes a network: decided once, said where it is another."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ddpm.config import NetworkConfig, OwnConfig
from ddpm.network.own import NetworkIdentity, identity_of
from orchestrator.store.codec import Codec


@dataclass(frozen=True, kw_only=True)
class OwnCode:
    """What decisions hold of another package's network.

    Attributes:
        network: What its numbers depend on; None for one of ours.
    """

    network: NetworkIdentity | None = None


_OWN_CODE = Codec(OwnCode, "what was decided for a network")


def network_decision(model: NetworkConfig) -> dict[str, object]:
    """Return what decisions hold of another package's network; {} for one of ours.

    Raises:
        ConfigError: It is not installed here.
    """
    return asdict(OwnCode(network=identity)) if (identity := _identity(model)) else {}


def network_change(decisions: Mapping[str, object], model: NetworkConfig) -> str:
    """Return "A, and here it is B" where decisions were made with other code; "" if not.

    Raises:
        ConfigError: It is not installed here.
    """
    was, here = _OWN_CODE.of(decisions).network, _identity(model)
    if was is None or here is None or was.sha256 == here.sha256:
        return ""
    return f"{was}, and here it is {here}"


def network_named(model: NetworkConfig) -> str:
    """Return another package's network with its code, for people; "" for ours."""
    return str(_identity(model) or "")


def package_of(decisions: Mapping[str, object]) -> dict[str, str]:
    """Return the version of the package that a network needs, by its name; {} for none."""
    identity = _OWN_CODE.of(decisions).network
    return {identity.package: identity.version} if identity and identity.package else {}


def _identity(model: NetworkConfig) -> NetworkIdentity | None:
    return identity_of(model.network) if isinstance(model, OwnConfig) else None
