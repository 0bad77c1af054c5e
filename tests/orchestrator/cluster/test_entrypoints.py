"""What a Ray Job is told to run reaches it unchanged, whatever a user typed."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cluster.entrypoints import python_entrypoint
from tests.support.odd_texts import ODD_TEXTS

ROOT = Path(__file__).resolve().parents[3]


def test_a_shell_hands_every_argument_on_as_it_stands(tmp_path: Path) -> None:
    """Unquoted, a store's prefix with `;` ran as a command, for ever beside the orchestrator."""
    (tmp_path / "tell.py").write_text("import json, sys; print(json.dumps(sys.argv[1:]))")
    texts = [*ODD_TEXTS, "two\nlines", "", "s3://bucket/a b; touch pwned"]
    line = python_entrypoint("tell", *texts, 7)
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/bash", "-c", line],  # as Ray's job supervisor runs it
        cwd=tmp_path, env={**os.environ, "PATH": programs}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == [*texts, "7"]
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ""] == ["tell.py"]


@pytest.mark.parametrize("package", ["ddpm", "orchestrator"])
def test_nobody_else_builds_a_command_line_from_text(package: str) -> None:
    """The next one who pastes a text into `python -m ...` opens the same door."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.JoinedStr)
        and any(
            isinstance(part, ast.Constant) and "python -m" in str(part.value)
            for part in node.values
        )
    ]
    assert found == []
