"""A second store beside the configured one: another prefix, another account, another server."""

from functools import partial
from typing import TYPE_CHECKING, cast

from orchestrator.errors import BadInputError
from orchestrator.store.s3_client import DEFAULT_REGION
from orchestrator.store.s3_store import S3Store, open_store
from orchestrator.store.uris import parse_store_uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def open_elsewhere(uri: str, profile: str = "", endpoint: str = "") -> S3Store:
    """Return the store at s3://bucket/prefix, by other credentials or at another server.

    Args:
        uri: Its address.
        profile: Of ~/.aws/config: its credentials, region and endpoint_url count and no AWS_*; ""
            for what is configured.
        endpoint: The server; "" for the profile's, or what is configured.

    Raises:
        BadInputError: The URI is malformed, or the profile cannot be used.
    """
    if not profile and not endpoint:
        return open_store(uri)
    renewed = partial(_client, profile, endpoint)
    return S3Store(renewed(), *parse_store_uri(uri), renewed)


def _client(profile: str, endpoint: str) -> "S3Client":
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        session = botocore.session.Session(profile=profile or None)
        at = endpoint or session.get_scoped_config().get("endpoint_url")
        region = session.get_config_variable("region") or DEFAULT_REGION
        config = Config(  # type: ignore[call-arg]  # its types lack the first of them
            ignore_configured_endpoint_urls=True,
            retries={"mode": "standard", "max_attempts": 4},
            max_pool_connections=32,
            user_agent_extra="ddpmctl",
        )
        return cast(
            "S3Client",
            session.create_client("s3", region_name=region, endpoint_url=at, config=config),
        )
    except (BotoCoreError, ValueError) as error:
        message = " ".join(str(error).split())
        raise BadInputError(f"the store elsewhere cannot be opened: {message}") from error
