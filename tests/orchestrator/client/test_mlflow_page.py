"""The printed address of MLflow opens on runs."""

import pytest

from orchestrator.client.mlflow_page import runs_page


@pytest.mark.parametrize(
    ("address", "experiment_id", "page"),
    [
        (
            "http://127.0.0.1:5000/?token=abc",
            "7",
            "http://127.0.0.1:5000/?token=abc#/experiments/7/runs?workflowType=machine_learning",
        ),
        (
            "http://127.0.0.1:5000",
            "",
            "http://127.0.0.1:5000/#/experiments?workflowType=machine_learning",
        ),
        (
            "https://me:secret@host.example/mlflow",
            "7",
            "https://host.example/mlflow#/experiments/7/runs?workflowType=machine_learning",
        ),
    ],
)
def test_the_page_opens_on_runs_and_shows_no_password(
    address: str, experiment_id: str, page: str
) -> None:
    """MLflow's own start page is about language models, its experiments open on traces."""
    assert runs_page(address, experiment_id) == page
