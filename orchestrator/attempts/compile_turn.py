"""One process of a machine compiles a network; the others wait and then find it in the cache.

torch.compile keeps what it has compiled in a folder that all processes of a user share. Workers
that start together would nevertheless all compile at once, each for itself.
"""

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from orchestrator.cluster.cache import cache_folder


def compile_in_turn(key: str, compile_it: Callable[[], None], folder: Path | None = None) -> None:
    """Compile alone if nobody on this machine has compiled it before, else beside the others.

    Args:
        key: Names what is compiled; a hash.
        compile_it: Compiles it, or loads it from the compiler's own cache.
        folder: Where this machine's processes leave word for each other; None for the cache.
    """
    folder = folder or cache_folder("compiled")
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / key
    with FileLock(folder / f"{key}.lock"):  # ends with the process, however that ends
        if not done.exists():
            compile_it()
            done.touch()
            return
    compile_it()
