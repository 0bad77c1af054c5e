"""The argument that names a job, which shells complete."""

import click
from click.shell_completion import CompletionItem

from orchestrator.client.status import list_jobs
from orchestrator.client.surroundings import surroundings
from orchestrator.errors import OrchestratorError


class JobArgument(click.Argument):
    """A job: its id, the beginning of it, its name (the newest job), or @last."""

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002  # click hands it
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the jobs whose id begins so; nothing where no store answers."""
        try:
            jobs = list_jobs(surroundings(lambda _: None).store)
        except OrchestratorError:
            return []
        return [
            CompletionItem(job.job_id, help=f"{job.kind} {job.state}")
            for job in jobs
            if job.job_id.startswith(incomplete)
        ]
