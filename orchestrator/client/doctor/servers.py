"""Probes of Ray's Jobs API and of an MLflow server, over the HTTP library that their clients use.

So proxies, ~/.netrc, credentials inside of an address and certificates count as they do there.
"""

import importlib.metadata
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.client.doctor.findings import Finding
from orchestrator.counts import counted
from orchestrator.tracking.registry import shown_uri, without_secrets

_TIMEOUT_S = 5.0
_HTTP = ("http://", "https://")
_UP = "or run `ddpmctl up`"


def diagnose_ray() -> list[Finding]:
    """Probe the Ray cluster that RAY_ADDRESS names."""
    address = os.environ.get("RAY_ADDRESS", "")
    if not address.startswith(_HTTP):
        remedy = f"set RAY_ADDRESS to the Jobs API (http://host:8265), {_UP}"
        return [Finding("ray", "reachable", False, f"RAY_ADDRESS is {address!r}", remedy)]
    headers = _ray_headers(os.environ)
    status, body = _get(f"{address.rstrip('/')}/api/version", headers)
    if status in {401, 403}:
        remedy = "check RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
        return [Finding("ray", "token", False, f"{address} refuses the token", remedy)]
    if status != 200:
        return [_unreachable("ray", address, status, body, "RAY_ADDRESS")]
    return [
        Finding("ray", "reachable", True, f"the Jobs API at {address} answers"),
        _token(address, os.environ),
        _same_version("ray", _json(body).get("ray_version")),
        _resources(address, headers),
    ]


def diagnose_mlflow() -> list[Finding]:
    """Probe the MLflow server that MLFLOW_TRACKING_URI names."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    shown = shown_uri(address)
    if not address.startswith(_HTTP):
        remedy = f"set MLFLOW_TRACKING_URI to a server's http:// address, {_UP}"
        return [Finding("mlflow", "reachable", False, f"MLFLOW_TRACKING_URI is {shown!r}", remedy)]
    headers, options = _mlflow_headers(os.environ), _mlflow_options(os.environ)
    root = address.rstrip("/")
    path = "/api/2.0/mlflow/experiments/search?max_results=1"
    status, body = _get(root + path, headers, **options)
    if status in {401, 403}:
        remedy = "check MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD"
        return [Finding("mlflow", "credentials", False, f"{shown} refuses them", remedy)]
    if status != 200 or "experiments" not in _json(body):
        answer = without_secrets(body.decode(errors="replace"), root).encode()
        return [_unreachable("mlflow", shown, status, answer, "MLFLOW_TRACKING_URI")]
    version = _get(f"{root}/version", headers, **options)[1].decode(errors="replace").strip()
    return [
        Finding("mlflow", "reachable", True, f"the server at {shown} lists its experiments"),
        _same_version("mlflow", version),
    ]


def _token(address: str, environment: Mapping[str, str]) -> Finding:
    is_open = _get(f"{address.rstrip('/')}/api/jobs/", {})[0] == 200
    if not is_open:
        return Finding("ray", "token", True, "accepted; callers without it are refused")
    if environment.get("RAY_AUTH_MODE") == "token":
        remedy = "start the cluster with RAY_AUTH_MODE=token, or unset it here"
        return Finding("ray", "token", False, "the cluster does not ask for the token", remedy)
    return Finding("ray", "token", True, "none asked: whoever reaches it can run code on it")


def _same_version(part: str, theirs: str | None) -> Finding:
    ours = importlib.metadata.version(part)
    depth = 3 if part == "ray" else 1  # Ray refuses drivers of any other version
    ok = bool(theirs) and str(theirs).split(".")[:depth] == ours.split(".")[:depth]
    remedy = "" if ok else f"install {part}=={theirs} here, or {ours} there"
    return Finding(part, "version", ok, f"{theirs} there, {ours} here", remedy)


def _resources(address: str, headers: Mapping[str, str]) -> Finding:
    status, body = _get(f"{address.rstrip('/')}/nodes?view=summary", headers)
    nodes = _json(body).get("data", {}).get("summary", []) if status == 200 else []
    alive = [node["raylet"] for node in nodes if _is_alive(node)]
    total = {
        name: sum(float(raylet.get("resourcesTotal", {}).get(name, 0)) for raylet in alive)
        for name in ("CPU", "GPU")
    }
    names = Counter(node.get("hostname", "") for node in nodes if _is_alive(node))
    twins = [name for name, count in names.items() if name and count > 1]
    ok = bool(alive) and total["CPU"] > 0
    resources = ", ".join(counted(total[name], name) for name in total)
    detail = f"{counted(len(alive), 'node')}, {resources}"
    if twins:
        detail += f"; several nodes share the host name {', '.join(twins[:3])}: give each its own"
    remedy = "" if ok else "no node offers a CPU: look at the cluster's dashboard"
    return Finding("ray", "resources", ok, detail, remedy)


def _is_alive(node: Mapping[str, Any]) -> bool:
    return bool(node.get("raylet", {}).get("state") == "ALIVE")


def _unreachable(part: str, address: str, status: int, body: bytes, variable: str) -> Finding:
    said = " ".join(body.decode(errors="replace").split())[:200]
    detail = f"{address} answers with status {status}" if status else f"{address}: {said}"
    remedy = f"check {variable} and the network, {_UP}"
    return Finding(part, "reachable", False, detail, remedy)


def _ray_headers(environment: Mapping[str, str]) -> dict[str, str]:
    token = environment.get("RAY_AUTH_TOKEN", "")
    path = environment.get("RAY_AUTH_TOKEN_PATH", "")
    if not token and path:
        try:
            token = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError):
            token = ""
    return {"Authorization": f"Bearer {token}"} if token else {}


def _mlflow_headers(environment: Mapping[str, str]) -> dict[str, str]:
    token = environment.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _mlflow_options(environment: Mapping[str, str]) -> dict[str, Any]:
    user = environment.get("MLFLOW_TRACKING_USERNAME")
    password = environment.get("MLFLOW_TRACKING_PASSWORD")
    options: dict[str, Any] = {"auth": (user, password)} if user and password else {}
    if environment.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in {"true", "1"}:
        options["verify"] = False
    elif path := environment.get("MLFLOW_TRACKING_SERVER_CERT_PATH"):
        options["verify"] = path
    return options


def _get(url: str, headers: Mapping[str, str], **options: Any) -> tuple[int, bytes]:
    """Return status and body; status 0 and the reason where nobody answers.

    By the client that Ray and MLflow use: it goes by the same proxies and trusts the same.
    """
    import requests

    try:
        answer = requests.get(url, headers=dict(headers), timeout=_TIMEOUT_S, **options)
    except (OSError, ValueError) as error:  # of requests' own errors each is one of these
        return 0, str(error).encode()
    return answer.status_code, answer.content


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
