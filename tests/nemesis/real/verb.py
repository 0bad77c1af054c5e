"""`ddpmctl` on a stack whose store is reached through the proxy in NEMESIS_PROXY."""

import os
import sys
from collections.abc import Mapping

from orchestrator.cli.main import main
from orchestrator.stack import embedded
from orchestrator.stack.files import StackSecrets

access = embedded.store_access


def through_proxy(secrets: StackSecrets, ports: Mapping[str, int]) -> dict[str, str]:
    """Return how the store is reached, by all that this command starts too."""
    return {**access(secrets, ports), "AWS_ENDPOINT_URL_S3": os.environ["NEMESIS_PROXY"]}


if __name__ == "__main__":
    embedded.store_access = through_proxy
    sys.argv[0] = "ddpmctl"
    main()
