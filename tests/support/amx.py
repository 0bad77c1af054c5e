"""The AMX kernels for tests: compiled once for a checkout, not in every process that collects."""

from pathlib import Path

from ddpm.kernels.amx.kernels import kernels_obstacle

_FOLDER = Path(__file__).resolve().parents[2] / ".pytest_cache" / "amx-kernels"
AMX_OBSTACLE = kernels_obstacle(_FOLDER)
