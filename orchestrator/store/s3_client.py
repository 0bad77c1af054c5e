"""The client that speaks to an S3-compatible server, as the environment configures it."""

import functools
import os
from typing import TYPE_CHECKING, cast

from orchestrator.errors import BadInputError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@functools.lru_cache(maxsize=4)
def s3_client(
    pid: int, settings: tuple[tuple[str, str], ...], answer_within_s: float
) -> "S3Client":
    """Return a client of the store that AWS_* names.

    Args:
        pid: Of this process: a forked one must not share sockets.
        settings: What configures it, as a key; botocore reads the environment itself.
        answer_within_s: Seconds of silence after which a request is sent again, or has failed.

    Raises:
        BadInputError: The settings are not usable.
    """
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=5,
        read_timeout=answer_within_s,
        retries={"mode": "standard", "max_attempts": 4},
        max_pool_connections=32,
        user_agent_extra="ddpmctl",
    )
    try:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        session = botocore.session.get_session()
        return cast("S3Client", session.create_client("s3", region_name=region, config=config))
    except (BotoCoreError, ValueError) as error:
        raise BadInputError(
            f"the AWS_* settings are not usable: {' '.join(str(error).split())}"
        ) from error
