"""The same settings give the same bits in every version: golden hashes of what fixes them.

Where a test here fails, stored sets and checkpoints would go on with other bits: raise
`BITS_VERSION`, say so in the changelog, and only then write the new hash down. The hashes of a
training step and of a chain belong to a torch version and a kind of processor (its
instructions, or its make and family where those do not tell enough: the libraries below torch
have kernels of their own for each). Where there is no entry, `python -m tests.ddpm.test_bits`
on the version before the change prints one.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm.bits import BITS_VERSION, bits_version_of
from tests.support.golden import EVERYWHERE, TABLES, chain, schedule_of, training_step

GOLDEN = Path(__file__).with_name("golden_bits.json")
COMPUTED: dict[str, Callable[[], str]] = {
    "training step": training_step,
    "ddpm chain": lambda: chain("ddpm"),
    "ddim chain": lambda: chain("ddim"),
}


def environment_keys() -> tuple[str, str]:
    """Return what the bits of float32 sums depend on, with the processor's family and without."""
    release = torch.__version__.split("+")[0]
    instructions = torch.backends.cpu.get_cpu_capability()
    words = Path("/proc/cpuinfo").read_text("utf-8") if sys.platform == "linux" else ""
    lines = dict(re.findall(r"^(vendor_id|cpu family)\s*: (.+)$", words, re.MULTILINE))
    processor = f"{lines.get('vendor_id', '?')} family {lines.get('cpu family', '?')}"
    return (
        f"torch {release}, {instructions} of {processor}, kernels torch",
        f"torch {release}, {instructions}, kernels torch",
    )


@pytest.fixture(scope="module")
def golden() -> dict[str, dict[str, str]]:
    """The hashes that were written down."""
    known: dict[str, dict[str, str]] = json.loads(GOLDEN.read_text("utf-8"))
    return known


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Gradients are summed in another order by more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("what", EVERYWHERE)
def test_integers_and_noise_are_the_same_everywhere(
    golden: dict[str, dict[str, str]], what: str
) -> None:
    """Which noise an image gets, and in which order images come, is the format of every set."""
    assert EVERYWHERE[what]() == golden["everywhere"][what]


@pytest.mark.parametrize("betas", ["linear", "cosine"])
@pytest.mark.parametrize("num_timesteps", [50, 1000])
def test_tables_are_the_same_everywhere(
    golden: dict[str, dict[str, str]], betas: str, num_timesteps: int
) -> None:
    """In float64; a processor's own cosine may differ in the last digit, which float32 forgets."""
    schedule = schedule_of(betas, num_timesteps)
    for name in TABLES:
        table = getattr(schedule, name).double().numpy()
        known = golden["tables"][f"{betas} {num_timesteps} {name}"]
        at = np.linspace(0, num_timesteps - 1, 9).round().astype(int)
        np.testing.assert_allclose(table[at], [float.fromhex(v) for v in known.split()], rtol=2e-13)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("what", COMPUTED)
def test_a_step_and_a_chain_are_the_same_on_the_same_kind_of_machine(
    golden: dict[str, dict[str, str]], what: str
) -> None:
    """A training or a set that goes on after an upgrade must not become another one."""
    entry = next((golden[key] for key in environment_keys() if key in golden), None)
    if entry is None:
        pytest.skip(f"no golden entry for {environment_keys()[0]}")
    assert COMPUTED[what]() == entry[what]


def test_there_is_an_entry_for_the_torch_that_is_installed(
    golden: dict[str, dict[str, str]],
) -> None:
    """Else the test above would be skipped on every machine after an upgrade of torch."""
    release = torch.__version__.split("+")[0]
    assert any(key.startswith(f"torch {release}, ") for key in golden)


def test_decisions_of_earlier_times_read_as_version_1() -> None:
    """Sets begun before there were versions go on; what nobody knows is refused."""
    of_sets = "b86dbc3e67d6f763bb9511f52aaecab5ba43c7c8e1a28d29b992c67aacadb888"
    assert bits_version_of({"code_sha256": of_sets}) == 1
    assert bits_version_of({"code_sha256": "0" * 64}) is None
    assert bits_version_of({"code_sha256": "0" * 64, "bits_version": BITS_VERSION}) == BITS_VERSION
    assert bits_version_of({}) is None


def _tables() -> dict[str, str]:
    known = {}
    for betas in ("linear", "cosine"):
        for num_timesteps in (50, 1000):
            at = np.linspace(0, num_timesteps - 1, 9).round().astype(int)
            for name in TABLES:
                table = getattr(schedule_of(betas, num_timesteps), name).double().numpy()
                known[f"{betas} {num_timesteps} {name}"] = " ".join(
                    float(value).hex() for value in table[at]
                )
    return known


if __name__ == "__main__":
    torch.set_num_threads(1)
    values = {
        "everywhere": {name: compute() for name, compute in EVERYWHERE.items()},
        "tables": _tables(),
        environment_keys()[0]: {name: compute() for name, compute in COMPUTED.items()},
    }
    print(json.dumps(values, indent=1))  # noqa: T201 - its only output
