"""What may import what, and the limits that keep the code readable."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A module imports only from the ones above it. A new module gets a line here, as high as it can.
ORCHESTRATOR_ORDER = (
    "errors",
    "state",
    "outcome",
    "retry",
    "snapshot",
    "placement",
    "ledger",
    "preemption",
    "shards",
    "documents",
    "spec_errors",
    "spec",
    "admission",
    "paths",
    "storage",
    "numbered",
    "records",
    "lease",
    "job_index",
    "images",
    "dataset_arrays",
    "dataset_files",
    "dataset_sources",
    "datasets",
    "tracking_lines",
    "system_metrics",
    "metric_writer",
    "redaction",
    "local_log",
    "log_reader",
    "logs",
    "outages",
    "checkpoint_commit",
    "checkpoints",
    "background_saver",
    "attempt",
    "sample_shards",
    "ray_jobs",
    "lifecycle",
    "ray_cluster",
    "processes",
    "loopback_ports",
    "attempt_board",
    "attempt_control",
    "cli_show",
    "code_version",
    "job_lookup",
    "submit",
    "ensure",
    "mlflow_gate",
    "plan",
    "private_files",
    "certificates",
    "progress_bar",
    "registry",
    "requests",
    "reservations",
    "scheduling",
    "forecast",
    "explanation",
    "sample_drawing",
    "sample_manifest",
    "sample_model",
    "models",
    "controller",
    "sample_network",
    "sample_partials",
    "sample_sets",
    "sample_export",
    "sample_studio",
    "sample_worker",
    "sample_crew",
    "sample_fleet",
    "sample_progress",
    "sampling_job",
    "stack_files",
    "stack_parts",
    "stack_launch",
    "stack_mlflow",
    "stack_ray",
    "stack_seaweed",
    "stack",
    "findings",
    "doctor_store",
    "doctor_servers",
    "doctor",
    "environment",
    "cli_verbs",
    "cli",
    "tracking_server",
    "mlflow_server",
    "tracking_cursor",
    "tracking",
    "tracking_loop",
    "orchestrator_actor",
    "training_report",
    "training_worker",
    "training_job",
)
DDPM_MAY_IMPORT = frozenset({"ddpm", "numpy", "torch", "safetensors"}) | sys.stdlib_module_names
OURS = ("ddpm", "orchestrator")
BANNED_NAMES = frozenset({"utils", "util", "common", "helpers", "base", "types", "manager", "misc"})
HEAVY = ("ray", "torch", "mlflow", "boto3", "sklearn", "pyarrow")
# The tops of processes and threads, which record whatever happened below.
MAY_CATCH_ALL = frozenset(
    {
        "orchestrator/attempt.py: run_attempt",
        "orchestrator/orchestrator_actor.py: _run",
        "orchestrator/tracking_loop.py: carry_until",
    }
)
CATCH_ALL = frozenset({"Exception", "BaseException"})
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50

Function = ast.FunctionDef | ast.AsyncFunctionDef
FILES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in FILES}
MODULES = [name for name in TREES if not name.endswith("__init__.py")]


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
    return {part for part in _imported(TREES[name]) if part.split(".")[0] in OURS}


def _functions(tree: ast.AST) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_every_module_of_the_orchestrator_has_its_place() -> None:
    """A module that is not in the list could import anything."""
    present = {Path(name).stem for name in MODULES if name.startswith("orchestrator/")}
    assert present == set(ORCHESTRATOR_ORDER)
    assert len(ORCHESTRATOR_ORDER) == len(set(ORCHESTRATOR_ORDER))


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("orchestrator/")])
def test_module_imports_only_from_above(name: str) -> None:
    """Decisions stay free of I/O, and nothing imports in a circle."""
    place = ORCHESTRATOR_ORDER.index(Path(name).stem)
    above = {f"orchestrator.{module}" for module in ORCHESTRATOR_ORDER[:place]}
    below = {part for part in _own_imports(name) if part.startswith("orchestrator")} - above
    assert not below


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("ddpm/")])
def test_mathematics_knows_nothing_of_the_outside(name: str) -> None:
    """The library runs without Ray, MLflow, S3, pydantic and click."""
    assert {part.split(".")[0] for part in _imported(TREES[name])} <= DDPM_MAY_IMPORT
    attributes = {node.attr for node in ast.walk(TREES[name]) if isinstance(node, ast.Attribute)}
    assert not attributes & {"environ", "getenv"}


def test_mathematics_imports_in_no_circle() -> None:
    """A circle would need imports inside functions sooner or later."""
    graph = {
        name.removesuffix(".py").replace("/", "."): _own_imports(name)
        for name in MODULES
        if name.startswith("ddpm/")
    }
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", MODULES)
def test_functions_import_none_of_our_modules(name: str) -> None:
    """Such an import hides an arrow of the design."""
    hidden = {
        f"{function.name}: {part}"
        for function in _functions(TREES[name])
        for part in _imported(function)
        if part.split(".")[0] in OURS
    }
    assert not hidden


@pytest.mark.parametrize("name", [name for name in TREES if name.endswith("__init__.py")])
def test_package_files_hold_only_a_docstring(name: str) -> None:
    """Importing one module must not import others."""
    body = TREES[name].body
    assert len(body) == 1
    assert ast.get_docstring(TREES[name])


@pytest.mark.parametrize("name", MODULES)
def test_module_is_named_after_what_it_holds(name: str) -> None:
    """Drawers for anything fill up."""
    assert not set(Path(name).stem.split("_")) & BANNED_NAMES


@pytest.mark.parametrize("name", MODULES)
def test_file_and_its_functions_are_short(name: str) -> None:
    """A reader keeps one idea in mind at a time."""
    assert len((ROOT / name).read_text("utf-8").splitlines()) <= MAX_FILE_LINES
    lengths = {
        function.name: (function.end_lineno or 0) - function.lineno + 1
        for function in _functions(TREES[name])
    }
    assert {key for key, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == set()


def _catches_all(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    return any(isinstance(n, ast.Name) and n.id in CATCH_ALL for n in ast.walk(handler.type))


@pytest.mark.parametrize("name", MODULES)
def test_nothing_swallows_every_exception(name: str) -> None:
    """A programming error that is caught costs days; only the top of a process may do it."""
    swallowing = {
        f"{name}: {function.name}"
        for function in _functions(TREES[name])
        for node in ast.walk(function)
        if isinstance(node, ast.ExceptHandler)
        and _catches_all(node)
        and not isinstance(node.body[-1], ast.Raise)
    }
    assert swallowing <= MAY_CATCH_ALL


@pytest.mark.parametrize("name", MODULES)
def test_nothing_reads_pickles(name: str) -> None:
    """A pickle runs whatever its author wrote into it."""
    roots = {part.split(".")[0] for part in _imported(TREES[name])}
    assert not roots & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) != "torch.load"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False


@pytest.mark.skipif("orchestrator/cli.py" not in TREES, reason="there is no command line yet")
def test_command_line_starts_without_heavy_imports() -> None:
    """`ddpmctl list` must answer before a user wonders; `import ray` alone is half a second."""
    code = f"import sys, orchestrator.cli; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not done.stdout.split()
