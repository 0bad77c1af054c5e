"""Packages that bring networks, laid out as an installer lays them out: on `sys.path`, no more."""

import importlib
import shutil
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs/examples/dit"


def install_example(site: Path) -> Path:
    """Lay the documentation's example out in a folder, which is returned."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text("utf-8"))["project"]
    site.mkdir(parents=True, exist_ok=True)
    for path in EXAMPLE.glob("*.py"):
        shutil.copy(path, site / path.name)
    points = project["entry-points"]["ddpmctl.networks"]
    return _register(site, project["name"], project["version"], points)


def install(site: Path, code: str, points: Mapping[str, str], version: str = "1.0") -> Path:
    """Lay out a package `brought` with one module of this code; returns the folder."""
    site.mkdir(parents=True, exist_ok=True)
    (site / "brought.py").write_text(code)
    return _register(site, "brought", version, points)


def forget(module: str = "brought") -> None:
    """Have a package's module loaded anew, where a test has another one of that name."""
    sys.modules.pop(module, None)
    importlib.invalidate_caches()


def _register(site: Path, name: str, version: str, points: Mapping[str, str]) -> Path:
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{key} = {value}" for key, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[ddpmctl.networks]", *lines, ""]))
    return site
