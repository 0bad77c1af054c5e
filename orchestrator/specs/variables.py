"""Variables of the environment in job files: `${NAME}`, and `${NAME:-what stands there if unset}`.

A secret never enters a job file: what is submitted is kept in the store for years.
"""

import re
from collections.abc import Mapping

_REFERENCE = re.compile(
    r"\$\$|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|\$\{"
)
_SECRET = re.compile(
    r"(SECRET|TOKEN|PASSW(OR)?D|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY|AUTH|COOKIE)", re.IGNORECASE
)
BARE = re.compile(r"(?<!\$)\$([A-Za-z_][A-Za-z0-9_]*)")
"""A variable as a shell would take it; a job file leaves it as it stands."""


class Variables:
    """Fills variables in and remembers which.

    Args:
        environment: What they hold.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.used: dict[str, str] = {}
        self._environment = environment

    def fill_in(self, text: str) -> str:
        """Return a text with its variables filled in; `$$` is a dollar sign.

        Raises:
            ValueError: One is not set and has no default, or its name says that it is a secret.
        """
        return _REFERENCE.sub(self._value, text)

    def _value(self, found: "re.Match[str]") -> str:
        if found[0] == "$$":
            return "$"
        name = found["name"]
        if name is None:
            raise ValueError("write a variable as ${NAME} or ${NAME:-default}; $$ is a dollar sign")
        if _SECRET.search(name):
            raise ValueError(
                f"${{{name}}} looks like a secret by its name, and what is submitted is kept: "
                "credentials belong into the environment of the nodes"
            )
        value = self._environment.get(name) or found["default"]
        if value is None:
            raise ValueError(
                f"the variable {name} is not set; set it, or write ${{{name}:-default}}"
            )
        self.used[name] = value
        return value
