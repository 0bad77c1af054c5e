"""Looks a model up in MLflow's registry."""

import os
import re
from typing import TYPE_CHECKING

from orchestrator.errors import BadInputError, TrackingError
from orchestrator.tracking import tags

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_USER = re.compile(r"//[^/?#]*@")

_HIGHEST_VERSION = 2**31 - 1  # MLflow's databases fail beyond, as if the server were down


def registered_checkpoint(name: str) -> str:
    """Return the s3:// URI of the checkpoint that `name@alias` or `name/version` points at.

    Raises:
        BadInputError: There is no such model, or it is none of ours.
        TrackingError: MLflow does not answer.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise BadInputError(
            "model.registered needs MLFLOW_TRACKING_URI where the orchestrator runs"
        )
    from mlflow.exceptions import MlflowException

    client = _client(uri)
    model, at, alias = name.partition("@")
    try:
        if at:
            version = client.get_model_version_by_alias(model, alias)
        else:
            model, _, number = name.partition("/")
            if number.isdigit() and int(number) > _HIGHEST_VERSION:
                raise BadInputError(f"model.registered: MLflow knows no {name}")
            version = client.get_model_version(model, number)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise BadInputError(f"model.registered: MLflow knows no {name}") from error
        raise _no_answer(uri, error.message) from error
    commit = version.tags.get(tags.COMMIT)
    if commit is None:
        raise BadInputError(f"model.registered: {name} points at no checkpoint of ddpmctl")
    return str(commit)


def _client(uri: str) -> "MlflowClient":
    """Return a client. Raises: TrackingError, the address is none."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        return MlflowClient(uri)
    except MlflowException as error:
        raise _no_answer(uri, error.message) from error


def shown_uri(uri: str) -> str:
    """Return an address without the user and the password that it may hold."""
    return _USER.sub("//", uri, count=1)  # an address that is no URL has its secrets, too


def without_secrets(text: str, uri: str) -> str:
    """Return what a client of MLflow says without the user and the password of its address."""
    return text.replace(uri.rstrip("/"), shown_uri(uri).rstrip("/"))


def _no_answer(uri: str, message: str) -> TrackingError:
    return TrackingError(
        f"MLflow at {shown_uri(uri)} does not answer: {without_secrets(message, uri)}"
    )


def registered_versions(job_id: str) -> list[str]:
    """Return the registered versions of a job's models, as people call them: "digits/3".

    Raises:
        TrackingError: MLflow does not answer, or MLFLOW_TRACKING_URI is not set.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise TrackingError("MLFLOW_TRACKING_URI is not set: set it, to see what is registered")
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        versions = MlflowClient(uri).search_model_versions(f"tags.`{tags.JOB}` = '{job_id}'")
    except MlflowException as error:
        raise _no_answer(uri, error.message) from error
    return sorted(f"{version.name}/{version.version}" for version in versions)
