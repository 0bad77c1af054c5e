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
    "boot",
    "private_files",
    "local_cache",
    "compute_process",
    "state",
    "outcome",
    "retry",
    "lifecycle",
    "shards",
    "shard_table",
    "snapshot",
    "placement",
    "ledger",
    "preemption",
    "reservations",
    "documents",
    "spec_errors",
    "spec",
    "admission",
    "scheduling",
    "forecast",
    "borrowing",
    "explanation",
    "paths",
    "group_spec",
    "sweep_matrix",
    "group_files",
    "groups",
    "storage",
    "json_objects",
    "numbered",
    "records",
    "submissions",
    "lease_view",
    "lease",
    "requests",
    "smoke_job",
    "smoke_gate",
    "job_index",
    "job_lookup",
    "findings",
    "images",
    "dataset_refs",
    "dataset_arrays",
    "dataset_files",
    "dataset_sources",
    "datasets",
    "tracking_lines",
    "system_metrics",
    "metric_writer",
    "registry",
    "mlflow_gate",
    "tracking_server",
    "mlflow_server",
    "tracking_cursor",
    "tracking_groups",
    "tracking",
    "tracking_loop",
    "notifications",
    "redaction",
    "local_log",
    "log_reader",
    "logs",
    "outages",
    "checkpoint_commit",
    "checkpoints",
    "background_saver",
    "checkpoint_references",
    "code_version",
    "attempt",
    "smoke",
    "training_report",
    "training_smoke",
    "queue_view",
    "sample_shards",
    "sample_manifest",
    "sample_model",
    "models",
    "sample_network",
    "sample_drawing",
    "sample_partials",
    "compile_turn",
    "sample_smoke",
    "sample_studio",
    "sample_worker",
    "sample_crew",
    "sample_fleet",
    "sample_progress",
    "sample_loan",
    "sample_sets",
    "sample_export",
    "sampling_job",
    "ray_jobs",
    "ray_cluster",
    "attempt_board",
    "training_worker",
    "training_entry",
    "lone_worker",
    "training_job",
    "attempt_control",
    "plan",
    "job_dataset",
    "job_view",
    "submit",
    "references",
    "deletion",
    "garbage",
    "ensure",
    "processes",
    "loopback_ports",
    "certificates",
    "stack_files",
    "stack_parts",
    "stack_seaweed",
    "stack_ray",
    "stack_mlflow",
    "stack_launch",
    "stack",
    "environment",
    "doctor_store",
    "doctor_servers",
    "doctor",
    "group_control",
    "adoption",
    "controller",
    "orchestrator_actor",
    "output",
    "cli_show",
    "progress_bar",
    "cli_stack",
    "cli_queue",
    "cli_changes",
    "cli_removal",
    "cli_logs",
    "cli_jobs",
    "cli_submit",
    "cli_samples",
    "cli_cluster",
    "cli",
)
DDPM_MAY_IMPORT = frozenset({"ddpm", "numpy", "torch", "safetensors"}) | sys.stdlib_module_names
OURS = ("ddpm", "orchestrator")
BANNED_NAMES = frozenset({"utils", "util", "common", "helpers", "base", "types", "manager", "misc"})
HEAVY = ("ray", "torch", "mlflow", "boto3", "sklearn", "pyarrow")
# The tops of processes and threads, which record whatever happened below.
MAY_CATCH_ALL = frozenset(
    {
        "orchestrator/attempt.py: _beat_until",
        "orchestrator/attempt.py: run_attempt",
        "orchestrator/controller.py: _answer",
        "orchestrator/controller.py: _guarded",
        "orchestrator/group_control.py: follow",
        "orchestrator/orchestrator_actor.py: _run",
        "orchestrator/orchestrator_actor.py: notify_until",
        "orchestrator/tracking_loop.py: carry_until",
    }
)
PICKLES = frozenset({"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"})
CATCH_ALL = frozenset({"Exception", "BaseException"})
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50

FILES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in FILES}
NODES = {name: list(ast.walk(tree)) for name, tree in TREES.items()}
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


FUNCTIONS = [
    (name, node)
    for name in MODULES
    for node in NODES[name]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
]


def test_every_module_of_the_orchestrator_has_its_place() -> None:
    """A module that is not in the list could import anything."""
    present = {Path(name).stem for name in MODULES if name.startswith("orchestrator/")}
    assert present == set(ORCHESTRATOR_ORDER)
    assert len(ORCHESTRATOR_ORDER) == len(set(ORCHESTRATOR_ORDER))


def test_modules_import_only_from_above() -> None:
    """Decisions stay free of I/O, and nothing imports in a circle."""
    for place, module in enumerate(ORCHESTRATOR_ORDER):
        above = {f"orchestrator.{other}" for other in ORCHESTRATOR_ORDER[:place]}
        imported = _own_imports(f"orchestrator/{module}.py")
        below = {part for part in imported if part.startswith("orchestrator")} - above
        assert not below, module


def test_mathematics_knows_nothing_of_the_outside() -> None:
    """The library runs without Ray, MLflow, S3, pydantic and click."""
    for name in (name for name in TREES if name.startswith("ddpm/")):
        assert {part.split(".")[0] for part in _imported(TREES[name])} <= DDPM_MAY_IMPORT, name
        attributes = {node.attr for node in NODES[name] if isinstance(node, ast.Attribute)}
        assert not attributes & {"environ", "getenv"}, name


def test_mathematics_imports_in_no_circle() -> None:
    """A circle would need imports inside functions sooner or later."""
    graph = {
        name.removesuffix(".py").replace("/", "."): _own_imports(name)
        for name in MODULES
        if name.startswith("ddpm/")
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_functions_import_none_of_our_modules() -> None:
    """Such an import hides an arrow of the design."""
    hidden = {
        f"{name}: {function.name}: {part}"
        for name, function in FUNCTIONS
        for part in _imported(function)
        if part.split(".")[0] in OURS
    }
    assert hidden == set()


def test_package_files_hold_only_a_docstring() -> None:
    """Importing one module must not import others."""
    for name in TREES.keys() - set(MODULES):
        assert len(TREES[name].body) == 1, name
        assert ast.get_docstring(TREES[name]), name


def test_modules_are_named_after_what_they_hold() -> None:
    """Drawers for anything fill up."""
    assert not [name for name in MODULES if set(Path(name).stem.split("_")) & BANNED_NAMES]


def test_files_and_functions_are_short() -> None:
    """A reader keeps one idea in mind at a time."""
    lengths = {name: len((ROOT / name).read_text("utf-8").splitlines()) for name in TREES}
    assert {name for name, lines in lengths.items() if lines > MAX_FILE_LINES} == set()
    long = {
        f"{name}: {function.name}"
        for name, function in FUNCTIONS
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
        for name, function in FUNCTIONS
        if any(_swallows_all(node) for node in ast.walk(function))
    }
    assert swallowing == MAY_CATCH_ALL


def test_nothing_reads_pickles() -> None:
    """A pickle runs whatever its author wrote into it."""
    for name in MODULES:
        assert not {part.split(".")[0] for part in _imported(TREES[name])} & PICKLES, name
        for node in NODES[name]:
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) != "torch.load", name
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", name


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        # `ddpmctl list` must answer before a user wonders; `import ray` alone is half a second.
        ("cli", HEAVY),
        # Of a training, the worker needs torch, and the process before it does not.
        ("training_job", {"torch", "ray"}),
    ],
)
def test_starts_without_heavy_imports(module: str, heavy: set[str]) -> None:
    """What a process loads before it is needed delays whoever waits for it."""
    code = f"import sys, orchestrator.{module}; print(*(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not done.stdout.split()
