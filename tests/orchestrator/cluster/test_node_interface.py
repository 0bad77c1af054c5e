"""Workers of one training find one another at the address by which Ray knows their nodes."""

import os
from types import SimpleNamespace

import psutil
import pytest

from orchestrator.cluster.node_interface import SETTINGS, interface_of, use_node_interface

HOST = {
    "lo": [SimpleNamespace(address="127.0.0.1"), SimpleNamespace(address="::1")],
    "docker0": [SimpleNamespace(address="172.17.0.1")],
    "ens5": [SimpleNamespace(address="10.77.0.2"), SimpleNamespace(address="fe80::1%ens5")],
}


@pytest.mark.parametrize(
    ("address", "name"),
    [("10.77.0.2", "ens5"), ("fe80::1", "ens5"), ("127.0.0.1", "lo"), ("10.77.0.3", None)],
)
def test_the_interface_is_the_one_that_holds_rays_address(address: str, name: str | None) -> None:
    """A host's own name may mean 127.0.1.1, where others find themselves."""
    assert interface_of(address, HOST) == name


def test_both_libraries_are_told_and_a_choice_of_the_users_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever has a fast network beside the slow one says so."""
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setenv(SETTINGS[0], "")
    monkeypatch.delenv(SETTINGS[0])
    monkeypatch.setenv(SETTINGS[1], "ib0")
    use_node_interface()
    assert os.environ[SETTINGS[0]] == interface_of("127.0.0.1", psutil.net_if_addrs())
    assert os.environ[SETTINGS[1]] == "ib0"
