"""The one way to a client of an S3 server; the program and `doctor` look through the same."""

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from orchestrator.errors import BadInputError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DEFAULT_REGION = "us-east-1"
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_IGNORING = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"


@dataclass(frozen=True)
class Patience:
    """How long a request may take.

    Attributes:
        answer_within_s: Seconds of silence after which it is sent again, or has failed.
        connect_within_s: Seconds for the connection.
        tries: How often it is sent at most.
    """

    answer_within_s: float = 60.0
    connect_within_s: float = 5.0
    tries: int = 4


def s3_client(patience: Patience) -> "S3Client":
    """Return the client that AWS_*, or a profile, describes; the same one for the same settings.

    Raises:
        BadInputError: A setting cannot be used; the message names it.
    """
    # Kept by the process, since a forked one must not share sockets, and by what configures it.
    return _kept_client(os.getpid(), tuple(sorted(_variables().items())), patience)


@functools.lru_cache(maxsize=4)
def _kept_client(
    _pid: int, _settings: tuple[tuple[str, str], ...], patience: Patience
) -> "S3Client":
    return fresh_client(patience)


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def fresh_client(patience: Patience) -> "S3Client":
    """Return a new client, which looks for credentials anew.

    Raises:
        BadInputError: A setting cannot be used; the message names it.
    """
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    variables = _variables()
    _check_endpoint_counts(variables)
    config = Config(
        connect_timeout=patience.connect_within_s,
        read_timeout=patience.answer_within_s,
        retries={"mode": "standard", "max_attempts": patience.tries},
        max_pool_connections=32,
        user_agent_extra="ddpmctl",
    )
    try:
        session = botocore.session.get_session()
        # It looks through the folders of 400 services to see that there is one called s3.
        loader = session.get_component("data_loader")
        loader.list_available_services = lambda type_name: ["s3"]  # noqa: ARG005
        region = _region(variables) or session.get_config_variable("region") or DEFAULT_REGION
        return cast("S3Client", session.create_client("s3", region_name=region, config=config))
    except (BotoCoreError, ValueError) as error:
        raise BadInputError(_fault(error, variables)) from error


def endpoint_setting(environment: Mapping[str, str]) -> str:
    """Return the name of the setting that an endpoint comes from."""
    named = next((name for name in _ENDPOINTS if environment.get(name)), None)
    return named or "AWS_ENDPOINT_URL_S3 (or the profile's endpoint_url)"


def _check_endpoint_counts(variables: Mapping[str, str]) -> None:
    named = [name for name in _ENDPOINTS if variables.get(name)]
    if named and variables.get(_IGNORING, "").lower() == "true":
        raise BadInputError(
            f"{_IGNORING}=true makes {named[0]} count for nothing, so requests would go to Amazon: "
            "unset one of them"
        )


def _region(variables: Mapping[str, str]) -> str | None:
    return next((variables[name] for name in _REGIONS if variables.get(name)), None)


def _fault(error: Exception, variables: Mapping[str, str]) -> str:
    """Say which setting a client cannot be made of."""
    message = " ".join(str(error).split())
    name = type(error).__name__
    if name == "ProfileNotFound":
        profile = next((p for p in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE") if variables.get(p)), "")
        return f"{profile or 'AWS_PROFILE'}: {message}; name one of ~/.aws/config, or unset it"
    if name == "InvalidRegionError":
        setting = next((n for n in _REGIONS if variables.get(n)), "the profile's region")
        return f"{setting}: {message}"
    if name == "ConfigParseError":
        return f"{message}; mend that file, or set AWS_CONFIG_FILE"
    if isinstance(error, ValueError) and "AWS_ENDPOINT" in endpoint_setting(variables):
        return f"{endpoint_setting(variables)}: {message}"
    return f"the AWS_* settings are not usable: {message}"
