"""The way from a program to the jobs: what the command line does, as calls with results."""

import logging
import os
from dataclasses import replace

from orchestrator.api.jobs import JobHandle, JobTable
from orchestrator.api.requests import Request, job_file
from orchestrator.api.samples import Samples
from orchestrator.client.ensure import ensure_running
from orchestrator.client.owner import user_name
from orchestrator.client.prepare import check_sources, prepared
from orchestrator.client.status import list_jobs
from orchestrator.client.submit import submit_job, submit_with_smoke
from orchestrator.client.surroundings import Say, Start, Surroundings, surroundings
from orchestrator.jobs.lookup import find_job_id

logger = logging.getLogger(__name__)


class Client:
    """Speaks to the store and the cluster that the environment names, as `ddpmctl` does.

    DDPMCTL_STORE, RAY_ADDRESS, MLFLOW_TRACKING_URI and AWS_* name a cluster of your own; without
    DDPMCTL_STORE it is the embedded stack in `.ddpmctl/`, which `submit` starts. An instance may be
    used by several threads.

    Args:
        say: Told what is started, taken in or odd, a line each; by default the log of this module.
    """

    def __init__(self, say: Say | None = None) -> None:
        self._say: Say = say or logger.info

    def submit(self, job: Request, *, job_id: str | None = None, smoke: bool = False) -> JobHandle:
        """Check a job and put it into the queue.

        Args:
            job: A `TrainJob` or another; a mapping as a job file holds it; or a job file's path.
            job_id: Its id: submitting the same id and job twice is submitting once.
            smoke: First a one-worker job that looks whether it works.

        Raises:
            BadInputError: It cannot work; one line that says what to do.
            SpecConflictError: The id is taken by another job.
        """
        file, folder = job_file(job, os.environ)
        check_sources(file, folder)
        around = surroundings(self._say, Start.FRESH)
        ready = prepared(file, folder, around.store, self._say)
        for warning in ready.warnings:
            logger.warning("%s", warning)
        put = submit_with_smoke if smoke else submit_job
        asked = replace(ready.asked, user=user_name())
        submission = put(around.store, ready.spec, job_id, asked)
        ensure_running(around, self._say)
        return JobHandle(around, submission.job_id, self._say)

    def job(self, job: str) -> JobHandle:
        """Return a job by its id, its name (the newest), the beginning of its id, or `@last`.

        Raises:
            JobNotFoundError: There is none.
        """
        around = self._around()
        return JobHandle(around, find_job_id(around.store, job), self._say)

    def jobs(self, *, everything: bool = False) -> JobTable:
        """Return the jobs: those that live, then the ended ones, the newest first.

        Args:
            everything: Also the ended ones that the index no longer holds.
        """
        return JobTable(list_jobs(self._around().store, everything=everything))

    def samples(self, job: str) -> Samples:
        """Return the set of a sample job, named as for `job`. Raises: BadInputError."""
        return self.job(job).samples()

    def _around(self) -> Surroundings:
        return surroundings(self._say, Start.NEVER)
