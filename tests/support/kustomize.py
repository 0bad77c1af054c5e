"""Renders folders of `infra/kubernetes` with the kustomize that is part of kubectl."""

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML


@functools.cache
def rendered(folder: Path) -> list[dict[str, Any]]:
    """Return the objects of a folder; a test is skipped, with a word, where there is no kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl to render with")
    done = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(YAML(typ="safe").load_all(done.stdout))
