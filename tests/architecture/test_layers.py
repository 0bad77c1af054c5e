"""What may import what, and the limits that keep the code readable."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Below all rooms: what every one of them raises and writes in its messages.
GROUND = ("errors", "counts")
# The house: floors from the ground up. A room imports the ground and rooms of lower floors, never a
# neighbour on its own, and of the lower ones only those that its row of `ROOMS` names.
FLOORS = (
    ("store", "lifecycle", "scheduling"),
    ("specs", "cluster"),
    ("jobs",),
    ("artifacts", "tracking", "attempts", "stack"),
    ("fleet",),  # its workers are processes of an attempt, and its progress is a metric
    ("training", "sampling", "evaluation", "preparation", "controller", "client"),
    ("cli", "api", "ui"),
)
_ATTEMPT = "store lifecycle specs cluster artifacts tracking attempts"
_VERBS = "store lifecycle scheduling specs jobs artifacts stack client"
ROOMS = {
    "store": "",
    "lifecycle": "",
    "scheduling": "",
    "specs": "store lifecycle",
    "cluster": "lifecycle scheduling",
    "jobs": "store lifecycle scheduling specs cluster",
    "artifacts": "store lifecycle specs cluster jobs",
    "tracking": "store lifecycle specs jobs",
    "attempts": "store lifecycle specs cluster jobs",
    "fleet": "store lifecycle scheduling specs cluster jobs tracking attempts",
    "stack": "cluster",
    "training": f"{_ATTEMPT} jobs",  # what a worker reports is what a heartbeat holds
    "sampling": f"{_ATTEMPT} scheduling jobs fleet",
    "evaluation": f"{_ATTEMPT} scheduling jobs fleet",
    "preparation": f"{_ATTEMPT} scheduling jobs fleet",
    "controller": "store lifecycle scheduling specs cluster jobs artifacts tracking",
    "client": "store lifecycle scheduling specs cluster jobs artifacts tracking stack",
    "cli": _VERBS,
    "api": _VERBS,
    "ui": _VERBS,
}
DDPM_ROOMS = {
    "bits": "",
    "errors": "",
    "settings": "",
    "config": "settings",
    "memory": "",
    "process": "config",
    "network": "config",
    "kernels": "config network",
    "compute": "config memory network kernels",
    "baselines": "config process network",  # small models of other families, to compare with
    "training": "config process network compute baselines",
    "exchange": "config process network compute training",  # models in the forms of others
    "metrics": "config",
}
PURE = ("lifecycle", "scheduling")
IMPURE = frozenset({"random", "secrets", "socket", "subprocess", "threading", "time", "urllib"})
# Arrows that no import shows: modules that are started, or loaded late, by their name.
STARTED_BY_NAME = {
    "orchestrator.artifacts.checkpoints.mlflow_files": ("orchestrator.sampling.pyfunc",),
    "orchestrator.cli.main": ("orchestrator.cli.",),
    "orchestrator.cli.ui": ("orchestrator.ui.server",),
    "orchestrator.client.surroundings": ("orchestrator.stack.embedded",),
    "orchestrator.client.datasets": ("orchestrator.artifacts.datasets.ingest",),
    "orchestrator.client.foreign_models": ("orchestrator.artifacts.checkpoints.foreign",),
    "orchestrator.client.ensure": ("orchestrator.controller.actor",),
    "orchestrator.specs.kinds": (
        "orchestrator.training.driver",
        "orchestrator.sampling.driver",
        "orchestrator.evaluation.driver",
        "orchestrator.evaluation.likelihood_driver",
        "orchestrator.preparation.driver",
    ),
    "orchestrator.sampling.setup": ("orchestrator.sampling.prepared",),
    "orchestrator.stack.ray_head": ("orchestrator.stack.ray_start",),
    "orchestrator.training.entry": ("orchestrator.training.worker",),
    "pyproject.toml": ("orchestrator.cli.main", "orchestrator.stack.mlflow_gate"),
    "infra/compose.yaml": ("orchestrator.stack.certificates", "orchestrator.stack.seaweed_probe"),
}
# These cross to another process, so they are no arrows of the house.
OTHER_PROCESSES = frozenset(
    {
        "orchestrator.artifacts.checkpoints.mlflow_files",
        "orchestrator.cli.ui",
        "orchestrator.client.ensure",
        "orchestrator.specs.kinds",
    }
)
DDPM_MAY_IMPORT = frozenset({"ddpm", "numpy", "torch", "safetensors"}) | sys.stdlib_module_names
OURS = ("ddpm", "orchestrator")
BANNED_NAMES = frozenset({"utils", "util", "common", "helpers", "base", "types", "manager", "misc"})
HEAVY = ("ray", "torch", "mlflow", "boto3", "sklearn", "pyarrow")
# The tops of processes and threads, which record whatever happened below.
MAY_CATCH_ALL = frozenset(
    {
        "orchestrator/attempts/running.py: beat_until",
        "orchestrator/attempts/running.py: run_attempt",
        "orchestrator/cli/main.py: main",
        "orchestrator/controller/leading.py: _run",
        "orchestrator/controller/leading.py: notify_until",
        "orchestrator/client/garbage.py: _turn",
        "orchestrator/jobs/troubles.py: serve",
        "orchestrator/store/watched_thread.py: run",
        "orchestrator/tracking/loop.py: carry_until",
    }
)
PICKLES = frozenset({"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"})
CATCH_ALL = frozenset({"Exception", "BaseException"})
PUBLIC_FACE = "orchestrator/api/__init__.py"  # `from orchestrator.api import Client`
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50

PATHS = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))
FILES = [path.relative_to(ROOT).as_posix() for path in PATHS]
MODULES = [name for name in FILES if not name.endswith("__init__.py")]


@cache
def _tree(name: str) -> ast.Module:
    """Return the syntax tree of a file; read by the first test that asks, not by who collects."""
    return ast.parse((ROOT / name).read_text("utf-8"))


@cache
def _nodes(name: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(_tree(name)))


def _imported(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names that a piece of code imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module in OURS:  # `from orchestrator import numbered` names a module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def _own_imports(name: str) -> set[str]:
    return {part for part in _imported(_tree(name)) if part.split(".")[0] in OURS}


@cache
def _functions() -> tuple[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef], ...]:
    return tuple(
        (name, node)
        for name in MODULES
        for node in _nodes(name)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def _room_of(module: str) -> str:
    """Return the room, or the module on the ground, of a dotted name of ours."""
    return module.split(".")[1]


def _dotted(name: str) -> str:
    return name.removesuffix(".py").replace("/", ".")


def _arrows(package: str) -> set[tuple[str, str, str]]:
    """Return (room, room, module -> module) for every import of a package's own modules."""
    return {
        (_room_of(_dotted(name)), _room_of(part), f"{_dotted(name)} -> {part}")
        for name in MODULES
        if name.startswith(f"{package}/")
        for part in _own_imports(name)
        if part.startswith(f"{package}.") and _room_of(part) != _room_of(_dotted(name))
    }


def _rooms_on_disk(package: str) -> set[str]:
    return {_room_of(_dotted(name)) for name in MODULES if name.startswith(f"{package}/")}


def test_every_module_lies_in_a_room_of_the_table() -> None:
    """A module outside of the table could import anything."""
    assert _rooms_on_disk("orchestrator") - set(GROUND) <= ROOMS.keys()
    assert _rooms_on_disk("ddpm") <= DDPM_ROOMS.keys()
    assert {room for floor in FLOORS for room in floor} == ROOMS.keys()


def test_rows_name_rooms_of_lower_floors_only() -> None:
    """The table itself must not allow a way up, or to a neighbour."""
    floor_of = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    for room, row in ROOMS.items():
        assert all(floor_of[other] < floor_of[room] for other in row.split()), room


@pytest.mark.parametrize(("package", "table"), [("orchestrator", ROOMS), ("ddpm", DDPM_ROOMS)])
def test_rooms_import_only_what_their_row_names(package: str, table: dict[str, str]) -> None:
    """Decisions stay free of I/O, and a reader knows where to look."""
    forbidden = {
        arrow
        for room, other, arrow in _arrows(package)
        if other not in (*GROUND, *table.get(room, "").split())
    }
    assert forbidden == set()


def test_the_ground_imports_nothing_of_ours() -> None:
    """Every room stands on it."""
    for name in ("ddpm/errors.py", *(f"orchestrator/{module}.py" for module in GROUND)):
        assert _own_imports(name) == set()


def test_pure_rooms_know_no_clock_and_no_chance() -> None:
    """What they decide follows from what they are given, so that a test can ask anything."""
    for name in MODULES:
        if not name.startswith(tuple(f"orchestrator/{room}/" for room in PURE)):
            continue
        assert not {part.split(".")[0] for part in _imported(_tree(name))} & IMPURE, name
        calls = {ast.unparse(n.func) for n in _nodes(name) if isinstance(n, ast.Call)}
        assert not {call for call in calls if call.endswith((".now", ".today", ".utcnow"))}, name


_MODULE_NAME = re.compile(r"\b(?:orchestrator|ddpm)(?:\.[a-z_]+)+")


def _named_modules(name: str) -> set[str]:
    """Return the modules of ours that a file's strings name, outside of docstrings."""
    docs = {
        id(node.body[0].value)
        for node in _nodes(name)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    texts = [
        node.value
        for node in _nodes(name)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]
    packages = tuple(f"{package}.{room}" for package in OURS for room in (*ROOMS, *DDPM_ROOMS))
    return {m for text in texts for m in _MODULE_NAME.findall(text) if m.startswith(packages)}


def test_modules_started_by_name_are_those_of_the_table() -> None:
    """An arrow in a string is an arrow, too."""
    by_name = {_dotted(name): found for name in MODULES if (found := _named_modules(name))}
    listed = {who: set(names) for who, names in STARTED_BY_NAME.items() if "." in who}
    for who, found in by_name.items():
        allowed = {name.rstrip(".") for name in listed.get(who, ())}
        rooms = {name.rpartition(".")[0] for name in allowed}
        assert found <= allowed | rooms | {f"{name}." for name in allowed}, who
    for who, names in listed.items():
        if who in OTHER_PROCESSES or not who.startswith("orchestrator."):
            continue
        for name in names:
            row = ROOMS[_room_of(who)].split()
            assert _room_of(name) == _room_of(who) or _room_of(name) in row, (who, name)


def test_what_is_started_by_name_is_there() -> None:
    """A module that moves must move in those strings, too."""
    for who, names in STARTED_BY_NAME.items():
        for name in names:
            path = ROOT / name.rstrip(".").replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").is_file(), (who, name)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    started = {*scripts["scripts"].values(), *scripts["entry-points"]["mlflow.app"].values()}
    assert {entry.split(":")[0] for entry in started} == set(STARTED_BY_NAME["pyproject.toml"])
    compose = (ROOT / "infra/compose.yaml").read_text("utf-8")
    assert set(_MODULE_NAME.findall(compose)) == set(STARTED_BY_NAME["infra/compose.yaml"])


def test_modules_are_loaded_late_only_where_the_table_says_so() -> None:
    """`importlib` hides an arrow from all the tests above."""
    late = {
        _dotted(name)
        for name in MODULES
        for node in _nodes(name)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module"
    }
    assert late <= STARTED_BY_NAME.keys()


def test_privates_of_ray_stand_in_one_module() -> None:
    """Each may be gone in its next version, and is to be looked for in one place."""
    private = {
        name
        for name in MODULES
        for part in _imported(_tree(name))
        if part.startswith("ray.") and any(word.startswith("_") for word in part.split("."))
    }
    assert private == {"orchestrator/cluster/ray_private.py", "orchestrator/stack/ray_start.py"}


def test_mathematics_knows_nothing_of_the_outside() -> None:
    """The library runs without Ray, MLflow, S3, pydantic and click."""
    for name in (name for name in FILES if name.startswith("ddpm/")):
        assert {part.split(".")[0] for part in _imported(_tree(name))} <= DDPM_MAY_IMPORT, name
        attributes = {node.attr for node in _nodes(name) if isinstance(node, ast.Attribute)}
        assert not attributes & {"environ", "getenv"}, name


@pytest.mark.parametrize("package", OURS)
def test_modules_import_in_no_circle(package: str) -> None:
    """A circle would need imports inside functions sooner or later."""
    graph = {_dotted(name): _own_imports(name) for name in MODULES if name.startswith(package)}
    graphlib.TopologicalSorter(graph).prepare()


def test_forms_of_artifacts_lie_below_their_users() -> None:
    """Pictures are a leaf; data sets, checkpoints and samples know one another downwards only."""
    below = {
        "images": (),
        "datasets": ("images",),
        "checkpoints": (),
        "samples": ("images", "checkpoints"),
    }
    for name in MODULES:
        if not name.startswith("orchestrator/artifacts/"):
            continue
        place = name.split("/")[2].removesuffix(".py")
        others = {
            part.split(".")[2]
            for part in _own_imports(name)
            if part.startswith("orchestrator.artifacts.") and part.split(".")[2] != place
        }
        assert others <= set(below[place]), name


def test_functions_import_none_of_our_modules() -> None:
    """Such an import hides an arrow of the design."""
    hidden = {
        f"{name}: {function.name}: {part}"
        for name, function in _functions()
        for part in _imported(function)
        if part.split(".")[0] in OURS
    }
    assert hidden == set()


def test_package_files_hold_only_a_docstring() -> None:
    """Importing one module must not import others; the face to programs names what it offers."""
    for name in set(FILES) - set(MODULES):
        assert ast.get_docstring(_tree(name)), name
        if name != PUBLIC_FACE:
            assert len(_tree(name).body) == 1, name
    *imports, names = _tree(PUBLIC_FACE).body[1:]
    assert all(isinstance(node, ast.ImportFrom) for node in imports)
    assert ast.unparse(names).startswith("__all__ = ")
    assert {_room_of(part) for part in _own_imports(PUBLIC_FACE)} == {"api"}


def test_modules_are_named_after_what_they_hold() -> None:
    """Drawers for anything fill up."""
    assert not [name for name in MODULES if set(Path(name).stem.split("_")) & BANNED_NAMES]


def test_files_and_functions_are_short() -> None:
    """A reader keeps one idea in mind at a time."""
    lengths = {name: len((ROOT / name).read_text("utf-8").splitlines()) for name in FILES}
    assert {name for name, lines in lengths.items() if lines > MAX_FILE_LINES} == set()
    long = {
        f"{name}: {function.name}"
        for name, function in _functions()
        if (function.end_lineno or 0) - function.lineno >= MAX_FUNCTION_LINES
    }
    assert long == set()


def _swallows_all(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler) or isinstance(node.body[-1], ast.Raise):
        return False
    if node.type is None:
        return True
    return any(isinstance(n, ast.Name) and n.id in CATCH_ALL for n in ast.walk(node.type))


def test_nothing_swallows_every_exception() -> None:
    """Caught, a programming error costs days: for tops of processes, and of a job's turn, only."""
    swallowing = {
        f"{name}: {function.name}"
        for name, function in _functions()
        if any(_swallows_all(node) for node in ast.walk(function))
    }
    assert swallowing == MAY_CATCH_ALL


def test_nothing_reads_pickles() -> None:
    """A pickle runs whatever its author wrote into it."""
    for name in MODULES:
        assert not {part.split(".")[0] for part in _imported(_tree(name))} & PICKLES, name
        safe = {
            id(node.func)  # with `weights_only` it builds tensors, and refuses all else
            for node in _nodes(name)
            if isinstance(node, ast.Call)
            and any(ast.unparse(keyword) == "weights_only=True" for keyword in node.keywords)
        }
        for node in _nodes(name):
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) != "torch.load" or id(node) in safe, name
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", name


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        # `ddpmctl list` must answer before a user wonders; `import ray` alone is half a second.
        ("cli.main", HEAVY),
        # Completion of a verb and `--help` are this module and click.
        ("cli.main", {"pydantic", "numpy", "importlib.metadata", "tempfile", "traceback"}),
        ("cli.submit", {*HEAVY, "numpy"}),
        ("cli.listing", {*HEAVY, "numpy"}),
        ("cli.jobs", {*HEAVY, "numpy"}),
        # Every verb asks it where the embedded store is.
        ("stack.embedded", {*HEAVY, "numpy"}),
        # The worker needs torch, and the process before it does not.
        ("training.driver", {"torch", "ray"}),
        ("sampling.driver", {"torch"}),
    ],
)
def test_starts_without_heavy_imports(module: str, heavy: set[str]) -> None:
    """What a process loads before it is needed delays whoever waits for it."""
    code = f"import sys, orchestrator.{module}; print(*(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not done.stdout.split()
