"""What infra/compose.yaml says of a part: its command line and its environment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from tests.hosts.namespaces import ROOT

_VARIABLE = re.compile(r"\$\{([A-Z_]+):\?[^}]*\}")
# A container's own folders are a host's below /tmp.
_FOLDERS = {"/data": "/tmp/data", "/certificates": "/tmp/certificates", "/run/secrets": "/tmp"}
TOKEN_FILE = "/tmp/ray_token"
CERTIFICATES = _FOLDERS["/certificates"]
DATA = _FOLDERS["/data"]


@dataclass(frozen=True)
class Part:
    """One service as it is started.

    Attributes:
        command: Program and arguments.
        environment: What the file sets for it.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]


def read_part(name: str, secrets: Mapping[str, str]) -> Part:
    """Return a service of the file with its secrets filled in.

    Args:
        name: Of the service.
        secrets: What infra/.env would hold.
    """
    text = (ROOT / "infra/compose.yaml").read_text("utf-8")
    services: dict[str, dict[str, Any]] = YAML(typ="safe").load(text)["services"]
    service = services[name]

    def told(value: object) -> str:
        filled = _VARIABLE.sub(lambda found: secrets[found[1]], str(value))
        for outside, inside in _FOLDERS.items():
            filled = filled.replace(outside, inside)
        return filled

    environment = {key: told(value) for key, value in service["environment"].items()}
    return Part(tuple(told(word) for word in service["command"]), environment)
