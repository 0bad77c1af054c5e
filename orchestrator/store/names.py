"""Ids and names of jobs: which can stand in a key, and how they are made and shortened."""

import hashlib
import re

from orchestrator.errors import BadInputError

MAX_JOB_ID_LENGTH = 63
MAX_NAME_LENGTH = 63
SMOKE_ENDING = "-smoke"
MADE_ID = re.compile(r"(?P<name>.+)-(?P<time>\d{8}-\d{6})-(?P<ending>[a-z0-9]{4})")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def check_name(what: str, name: str, max_length: int = MAX_JOB_ID_LENGTH) -> str:
    """Return `name` if it can stand in a key.

    Args:
        what: What the name is of, for the message.
        name: The name.
        max_length: Longest length allowed.

    Raises:
        BadInputError: It has other characters than a-z, 0-9 and inner hyphens, or is too long.
    """
    if _NAME.fullmatch(name) is None or "--" in name:
        raise BadInputError(
            f"{what} {name!r} is not usable: use a-z, 0-9 and single hyphens between them"
        )
    if len(name) > max_length:
        raise BadInputError(f"{what} {name!r} has {len(name)} characters; {max_length} at most")
    return name


def shortened(name: str, max_length: int) -> str:
    """Return a name of at most that length, the same for the same name, others for others."""
    if len(name) <= max_length:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{name[: max_length - len(digest) - 1].rstrip('-')}-{digest}"


def made_id(name: str, time: str, ending: str) -> str:
    """Return the id that is made for a job whose user chose none.

    Args:
        name: The job's name; a long one is shortened.
        time: When it was submitted, as 20261122-153012.
        ending: Four letters that tell apart what came in the same second.
    """
    rest = f"-{time}-{ending}"
    return shortened(name, MAX_JOB_ID_LENGTH - len(rest)) + rest


def part_id(whole_id: str, whole_name: str, part: str) -> str:
    """Return the id of a job that another one makes: the same for the same part, whoever asks.

    Args:
        whole_id: The other job's id.
        whole_name: And its name.
        part: What tells apart those that it makes.
    """
    made = MADE_ID.fullmatch(whole_id)
    if made is None:
        return shortened(f"{whole_id}-{part}", MAX_JOB_ID_LENGTH)
    return made_id(f"{whole_name}-{part}", made["time"], made["ending"])


def stem_of(name: str) -> str:
    """Return what stands before the time in the ids that are made for a name."""
    return MADE_ID.sub(r"\g<name>", made_id(name, "20000101-000000", "aaaa"))
