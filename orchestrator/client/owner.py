"""Who types: jobs remember by whom they were submitted."""

import getpass
import os


def user_name() -> str:
    """Return the user of this machine, or whom DDPMCTL_USER names; "" if nobody knows."""
    chosen = os.environ.get("DDPMCTL_USER")
    if chosen:
        return chosen[:64]
    try:
        return getpass.getuser()[:64]
    except (OSError, KeyError):  # no variable names one, and the machine does not know the number
        return ""
