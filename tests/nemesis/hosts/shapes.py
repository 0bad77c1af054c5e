"""Jobs over several hosts that take seconds each."""

from collections.abc import Mapping

from tests.hosts.user import CLI
from tests.nemesis.hosts.home import Hosts
from tests.nemesis.real.shapes import SHAPES as ON_A_STACK
from tests.nemesis.real.shapes import TEXTS as ON_ONE_WORKER
from tests.nemesis.real.shapes import Shape

_RESULTS = {shape.name: shape.result for shape in ON_A_STACK}
SHAPES = (
    Shape("train", _RESULTS["train"]),
    Shape("wide", _RESULTS["train"]),
    Shape("fleet", _RESULTS["sample"]),
)


def _over(kind: str, name: str, num_workers: str) -> str:
    text = ON_ONE_WORKER[kind].replace(f"name: {kind}\n", f"name: {name}\n")
    return text.replace("num_workers: 1", f"num_workers: {num_workers}")


TEXTS: Mapping[str, str] = {
    "train": ON_ONE_WORKER["train"],
    "wide": _over("train", "wide", "2"),
    "fleet": _over("sample", "fleet", "{min: 1, max: 3}").replace("96", "384"),
}


def write_files(hosts: Hosts) -> None:
    """Write the job files where verbs are called."""
    for name, text in TEXTS.items():
        hosts.cluster.network.hosts[CLI].write(f"/tmp/{name}.yaml", text)
