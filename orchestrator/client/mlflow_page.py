"""Addresses of MLflow's pages that open on runs."""

from urllib.parse import quote, urlsplit, urlunsplit


def runs_page(address: str, experiment_id: str = "") -> str:
    """Return the page of an experiment's runs, or of all experiments.

    MLflow opens on pages about language models unless the address says otherwise.

    Args:
        address: Of the server; a token in its query is kept, a user and a password are not.
        experiment_id: The experiment; "" for all.
    """
    parts = urlsplit(address)
    experiment = f"/{quote(experiment_id, safe='')}/runs" if experiment_id else ""
    page = f"/experiments{experiment}?workflowType=machine_learning"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path or "/", parts.query, page))
