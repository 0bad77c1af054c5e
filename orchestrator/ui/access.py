"""Who may see the page, and who may change something: a token, a cookie, a form's own mark."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

COOKIE_AGE_S = 30 * 24 * 3600


@dataclass(frozen=True)
class Access:
    """The token of one server, and what follows from it.

    Attributes:
        token: What the first link holds.
        port: The server's; browsers give a cookie to all ports of a host, so its name has it.
    """

    token: str
    port: int

    @classmethod
    def fresh(cls, port: int) -> "Access":
        """Return one that nobody can guess."""
        return cls(secrets.token_urlsafe(32), port)

    @property
    def cookie_name(self) -> str:
        """What the cookie is called."""
        return f"ddpmctl-ui-{self.port}"

    @property
    def cookie(self) -> str:
        """What the cookie holds: not the token itself, which would open the page elsewhere, too."""
        return self._derived("cookie")

    def csrf(self, job_id: str) -> str:
        """Return the mark that a form about a job has, and a page of somebody else has not."""
        return self._derived(f"csrf {job_id}")

    def _derived(self, what: str) -> str:
        return hmac.new(self.token.encode(), what.encode(), hashlib.sha256).hexdigest()

    def opens(self, token: str) -> bool:
        """Tell whether a token is this server's."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def knows(self, cookie: str) -> bool:
        """Tell whether a cookie is this server's."""
        return hmac.compare_digest(cookie.encode(), self.cookie.encode())

    def takes_form(self, job_id: str, mark: str, origin: str, host: str) -> bool:
        """Tell whether a form comes from a page of this server.

        Args:
            job_id: What it is about.
            mark: The form's.
            origin: What the browser says of the page that it stands on; "" if it says nothing.
            host: Whom the request is for.
        """
        is_from_here = origin in ("", f"http://{host}")
        return is_from_here and hmac.compare_digest(mark.encode(), self.csrf(job_id).encode())


def is_loopback(host: str) -> bool:
    """Tell whether a request's Host is this machine by a name that no other machine can take.

    A page of somebody else's, whose name was made to lead here, has that name in Host.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
