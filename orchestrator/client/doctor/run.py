"""A look at everything that jobs rely on, with a remedy for whatever is amiss."""

from concurrent.futures import ThreadPoolExecutor

from orchestrator.client.doctor.findings import Finding
from orchestrator.client.doctor.servers import diagnose_mlflow, diagnose_ray
from orchestrator.client.doctor.store import diagnose_store


def diagnose() -> list[Finding]:
    """Probe what the environment names: store, Ray and MLflow.

    A probe that fails is a finding, never an error. Each looks as the program does: through the
    same S3 client, and through the HTTP library that Ray's and MLflow's clients use.
    """
    with ThreadPoolExecutor(3) as pool:
        found = pool.map(lambda look: look(), (diagnose_store, diagnose_ray, diagnose_mlflow))
        return [finding for findings in found for finding in findings]
