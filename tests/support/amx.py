"""The AMX kernels for tests: compiled once for a checkout, not in every process that collects."""

import hashlib
import subprocess
import tempfile
from pathlib import Path

from ddpm.kernels.amx.kernels import FLAGS, SOURCE_FOLDER, kernels_obstacle

_FOLDER = Path(__file__).resolve().parents[2] / ".pytest_cache" / "amx-kernels"
AMX_OBSTACLE = kernels_obstacle(_FOLDER)


def kernels_compiled_in_a_hurry() -> Path:
    """Return the kernels as g++ makes them with -O0, from these sources or from ones like them."""
    command = ["g++", *FLAGS, "-O0", *sorted(map(str, SOURCE_FOLDER.glob("*.cpp")))]
    version = subprocess.run(["g++", "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(version + " ".join(command).encode())
    for source in sorted(SOURCE_FOLDER.glob("*.[ch]*")):
        digest.update(source.read_bytes())
    library = _FOLDER / f"hurried-{digest.hexdigest()[:16]}.so"
    if not library.exists():
        _FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_FOLDER) as temporary:
            made = Path(temporary) / "kernels.so"
            done = subprocess.run(
                [*command, "-o", str(made)], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            made.replace(library)
    return library
