"""The Ray Jobs HTTP API: the only way in which a command line reaches a cluster."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from orchestrator.errors import RayRefusedError, RayUnavailableError
from orchestrator.lifecycle.steps import DriverStatus

_STATUS = {
    "PENDING": DriverStatus.PENDING,
    "RUNNING": DriverStatus.RUNNING,
    "STOPPED": DriverStatus.STOPPED,
    "SUCCEEDED": DriverStatus.SUCCEEDED,
    "FAILED": DriverStatus.FAILED,
}


class RayJobs:
    """Submits, watches and stops Ray Jobs.

    Args:
        address: The Jobs API (http://host:port) or a GCS address; None takes RAY_ADDRESS.
        answer_within_s: Seconds of silence after which a request has failed: Ray's own client would
            wait for ever. For as long again, nothing more is asked.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        address: str | None = None,
        answer_within_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address or os.environ.get("RAY_ADDRESS")
        if not self._address:
            raise RayUnavailableError("RAY_ADDRESS is not set: name the Jobs API, or `ddpmctl up`")
        self._answer_within_s = answer_within_s
        self._clock = clock
        self._client: Any = None
        self._silent_until_s = 0.0

    def submit(
        self,
        submission_id: str,
        entrypoint: str,
        *,
        metadata: Mapping[str, str],
        runtime_env: Mapping[str, object] | None = None,
    ) -> bool:
        """Submit a job; return whether it is new (an id is used once and for all)."""
        with self._translated() as client:
            try:
                client.submit_job(
                    submission_id=submission_id,
                    entrypoint=entrypoint,
                    metadata=dict(metadata),
                    runtime_env=dict(runtime_env or {}),
                )
            except RuntimeError as error:
                if "already exists" in str(error):
                    return False
                raise
            return True

    def status(self, submission_id: str) -> DriverStatus:
        """Return what Ray says of a job."""
        with self._translated() as client:
            try:
                answer = str(client.get_job_status(submission_id).value)
            except RuntimeError as error:
                if "404" in str(error) or "does not exist" in str(error):
                    return DriverStatus.ABSENT
                raise
        return _STATUS[answer]

    def message(self, submission_id: str) -> str:
        """Return why Ray says that a job failed, or ""."""
        with self._translated() as client:
            return str(client.get_job_info(submission_id).message or "")

    def logs(self, submission_id: str) -> str:
        """Return what the job's driver printed so far."""
        with self._translated() as client:
            return str(client.get_job_logs(submission_id))

    def stop(self, submission_id: str) -> None:
        """Ask Ray to end a job's driver; an ended or absent one is no error."""
        with self._translated() as client:
            try:
                client.stop_job(submission_id)
            except RuntimeError as error:
                if "404" not in str(error) and "does not exist" not in str(error):
                    raise

    @contextmanager
    def _translated(self) -> Iterator[Any]:
        from ray.exceptions import AuthenticationError, RayError
        from requests.exceptions import Timeout

        if self._clock() < self._silent_until_s:  # many jobs must not wait one after the other
            raise RayUnavailableError(_advice("it was asked in vain just now", str(self._address)))
        try:
            if self._client is None:
                self._client = _client_with_end(str(self._address), self._answer_within_s)
            yield self._client
        except Timeout as error:
            self._client = None
            self._silent_until_s = self._clock() + self._answer_within_s
            raise RayUnavailableError(_advice(str(error), str(self._address))) from error
        except AuthenticationError as error:
            raise RayRefusedError(
                f"Ray at {self._address} refuses the token; "
                "check RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH"
            ) from error
        except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
            if isinstance(error, OSError):
                self._client = None  # a head that came back may have another address
            raise RayUnavailableError(_advice(str(error), str(self._address))) from error


def _client_with_end(address: str, answer_within_s: float) -> Any:
    from ray.job_submission import JobSubmissionClient

    class ClientWithEnd(JobSubmissionClient):  # type: ignore[misc]  # Ray gives no types here
        """Ray's client, with an end to its patience: it has no setting for that."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, timeout=answer_within_s, **options)

    return ClientWithEnd(address)


def _advice(text: str, address: str) -> str:
    line = " ".join(text.split())
    short = line if len(line) <= 200 else f"{line[:197]}..."
    return (
        f"Ray's Jobs API at {address} does not answer ({short}); check RAY_ADDRESS, or `ddpmctl up`"
    )
