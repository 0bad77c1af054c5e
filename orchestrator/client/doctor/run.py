"""A look at everything that jobs rely on, with a remedy for whatever is amiss."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from orchestrator.client.doctor.findings import Finding
from orchestrator.client.doctor.servers import diagnose_mlflow, diagnose_ray
from orchestrator.client.doctor.store import diagnose_store


def diagnose(environment: Mapping[str, str] | None = None) -> list[Finding]:
    """Probe the store, Ray and MLflow; a probe that fails is a finding, never an error.

    Args:
        environment: The variables that name them and hold the credentials; `os.environ`, if None.
    """
    around = dict(os.environ if environment is None else environment)
    with ThreadPoolExecutor(3) as pool:
        found = pool.map(lambda look: look(around), (diagnose_store, diagnose_ray, diagnose_mlflow))
        return [finding for findings in found for finding in findings]
