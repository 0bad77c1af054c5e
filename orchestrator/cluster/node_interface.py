"""Workers of one training meet at the network interface of Ray's node address.

Left alone, gloo takes the address that the host's name means, which on Debian and Ubuntu is
127.0.1.1: workers on other hosts then look for it on themselves. NCCL takes the first interface.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Protocol

import psutil

SETTINGS = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


class Address(Protocol):
    """What psutil says of one address of an interface."""

    @property
    def address(self) -> str:
        """IPv4, IPv6 or the card's own."""


def interface_of(address: str, interfaces: Mapping[str, Iterable[Address]]) -> str | None:
    """Return the name of the interface that holds an address; None if there is none.

    Args:
        address: IPv4 or IPv6.
        interfaces: Name to its addresses, as `psutil.net_if_addrs` returns them.
    """
    for name, held in interfaces.items():
        if any(one.address.partition("%")[0] == address for one in held):
            return name
    return None


def use_node_interface() -> None:
    """Have gloo and NCCL use the interface of Ray's node address, unless somebody chose one."""
    import ray.util

    name = interface_of(ray.util.get_node_ip_address(), psutil.net_if_addrs())
    for setting in SETTINGS if name else ():
        os.environ.setdefault(setting, str(name))
