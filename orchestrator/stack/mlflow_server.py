"""The MLflow server of the embedded stack: SQLite, artifacts in the store, a token at the door."""

import sys
from collections.abc import Mapping

from orchestrator.stack.files import StackFolder, StackSecrets
from orchestrator.stack.mlflow_gate import TOKEN_VARIABLE
from orchestrator.stack.parts import BUCKET, Part, http_get
from orchestrator.stack.ports import LOOPBACK

MLFLOW_PORTS = ("mlflow",)
# Patterns of fnmatch. Any port: a tunnel brings the page to another one, and a name that somebody
# points at this machine is still refused.
_OWN_NAMES = (LOOPBACK, "localhost", "[[]::1]")
ALLOWED_HOSTS = tuple(f"{name}{port}" for name in _OWN_NAMES for port in ("", ":*"))


def mlflow_url(ports: Mapping[str, int]) -> str:
    """Return the address of the server."""
    return f"http://{LOOPBACK}:{ports['mlflow']}"


def mlflow_access(secrets: StackSecrets, ports: Mapping[str, int]) -> dict[str, str]:
    """Return the variables by which a client finds the server and is let in."""
    return {
        "MLFLOW_TRACKING_URI": mlflow_url(ports),
        "MLFLOW_TRACKING_TOKEN": secrets.mlflow_token,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def mlflow_part(
    folder: StackFolder, secrets: StackSecrets, ports: Mapping[str, int], store: Mapping[str, str]
) -> Part:
    """Describe the MLflow server.

    Args:
        folder: Of the stack.
        secrets: Of the stack.
        ports: By name.
        store: The variables by which the store is reached.
    """
    port = ports["mlflow"]
    origins = [f"http://{host}:{port}" for host in (LOOPBACK, "localhost")]
    options = {
        "--app-name": "ddpmctl",
        "--host": LOOPBACK,
        "--port": str(port),
        "--workers": "1",
        # Relative to the working folder: a path may hold what a URI may not.
        "--backend-store-uri": "sqlite:///mlflow.db",
        "--artifacts-destination": f"s3://{BUCKET}/mlflow",
        "--allowed-hosts": ",".join(ALLOWED_HOSTS),
        "--cors-allowed-origins": ",".join(origins),
    }
    words = [word for option in options.items() for word in option]
    return Part(
        name="mlflow",
        command=(sys.executable, "-m", "mlflow", "server", *words),
        settings={
            **store,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            TOKEN_VARIABLE: secrets.mlflow_token,
        },
        inherits=True,
        folder=folder.mlflow,
        ports=(port,),
        prepare=lambda: None,
        is_ready=lambda: http_get(port, "/version", secrets.mlflow_token)[0] == 200,
    )
