"""The one place that builds what a Ray Job runs: a shell line, since Ray hands it to a shell."""

import shlex


def python_entrypoint(module: str, *arguments: object) -> str:
    """Return the shell line that runs a module of ours, with every argument as it stands.

    Args:
        module: Its dotted name.
        arguments: Whatever a user may have typed; a shell gives it on unchanged.
    """
    return shlex.join(["python", "-m", module, *(str(argument) for argument in arguments)])
