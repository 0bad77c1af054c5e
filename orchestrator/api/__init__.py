"""What a program or a notebook uses: `from orchestrator.api import Client, TrainJob`."""

from orchestrator.api.connection import Client
from orchestrator.api.jobs import JobHandle, JobTable
from orchestrator.api.requests import EvaluateJob, LikelihoodJob, SampleJob, TrainJob
from orchestrator.api.samples import Samples

__all__ = [
    "Client",
    "EvaluateJob",
    "JobHandle",
    "JobTable",
    "LikelihoodJob",
    "SampleJob",
    "Samples",
    "TrainJob",
]
