"""The process of `ddpmctl ui`: serves the page on this machine until it is ended."""

import argparse
import json
import os
import socket
import sys
from contextlib import closing, suppress
from typing import TextIO

import uvicorn

from orchestrator.client.asking import ask_and_wait
from orchestrator.client.ensure import ensure_running
from orchestrator.client.status import JobStatus, request
from orchestrator.client.surroundings import Surroundings, surroundings
from orchestrator.errors import OrchestratorError
from orchestrator.jobs.inbox import Verb
from orchestrator.ui.access import Access
from orchestrator.ui.app import Actions, build_app
from orchestrator.ui.looks import Looks

_HOST = "127.0.0.1"


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--actions", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        serve(options.port, with_actions=options.actions, as_json=options.json)
    except OrchestratorError as error:
        message = " ".join(str(error).split())
        value = json.dumps({"error": message, "exit_code": error.exit_code})
        _write(
            sys.stdout if options.json else sys.stderr,
            value if options.json else f"error: {message}",
        )
        sys.exit(error.exit_code)


def serve(port: int, *, with_actions: bool, as_json: bool) -> None:
    """Serve the page of the configured store.

    Args:
        port: Where; 0 for any that is free.
        with_actions: Whether jobs may be cancelled and retried there.
        as_json: Whether the address is printed as JSON.

    Raises:
        OrchestratorError: No store is configured, or the port is taken.
    """
    around = surroundings(_say)
    with closing(_listening(port)) as listening:
        access = Access.fresh(listening.getsockname()[1])
        looks = Looks(around.store, lambda status: _links(around, status))
        app = build_app(looks, access, _actions(around) if with_actions else None)
        address = f"http://{_HOST}:{access.port}/?token={access.token}"
        message = f"{address}\n  open it once; Ctrl-C ends it"
        _write(sys.stdout, json.dumps({"url": address}) if as_json else message)
        config = uvicorn.Config(app, log_level="warning", lifespan="off", server_header=False)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def _listening(port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((_HOST, port))
        found.listen(64)
    except OSError as error:
        found.close()
        reason = (error.strerror or str(error)).lower()
        raise OrchestratorError(
            f"port {port} cannot be used: {reason}; give another --port"
        ) from error
    return found


def _links(around: Surroundings, status: JobStatus) -> dict[str, str]:
    """Return MLflow's page of a job's experiment, and Ray's dashboard."""
    found = {}
    page = around.mlflow_page(status.experiment_id) if status.experiment_id else ""
    if page:
        found["MLflow"] = page
    ray = around.stack.ray_url if around.stack else os.environ.get("RAY_ADDRESS", "")
    if ray.startswith(("http://", "https://")):
        found["Ray"] = ray
    return found


def _actions(around: Surroundings) -> Actions:
    def cancel(job_id: str) -> None:
        request(around.store, job_id, Verb.CANCEL)
        ensure_running(around, _say)

    def retry(job_id: str) -> None:
        ask_and_wait(around, job_id, Verb.RETRY, _say)

    return Actions(cancel=cancel, retry=retry)


def _say(line: str) -> None:
    _write(sys.stderr, line)


def _write(stream: TextIO, line: str) -> None:
    stream.write(f"{line}\n")
    stream.flush()


if __name__ == "__main__":
    main()
