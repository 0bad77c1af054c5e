"""What s3://bucket/prefix means: every character stands for itself, or the address is refused."""

import re
import unicodedata

from orchestrator.errors import BadInputError

MAX_PREFIX_BYTES = 600  # a key has 1,024, of which our own part takes up to 300
MAX_PART_BYTES = 255  # of a key between two slashes; SeaweedFS keeps them as files

_SCHEME = "s3://"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")


def parse_store_uri(uri: str, setting: str = "the address") -> tuple[str, str]:
    """Return bucket and prefix of an s3:// URI, character by character as they stand.

    Nothing is decoded: `%`, `#` and `?` may be part of a key.

    Args:
        uri: The address.
        setting: What messages call it, such as DDPMCTL_STORE.

    Raises:
        BadInputError: It is not of the form s3://bucket/prefix, or no store keeps such a name.
    """
    bucket, _, path = uri.removeprefix(_SCHEME).partition("/")
    if not uri.startswith(_SCHEME) or not bucket:
        raise BadInputError(f"{setting} must look like s3://bucket/prefix, not {uri!r}")
    if not _BUCKET.fullmatch(bucket):
        raise BadInputError(
            f"{setting} {uri!r}: {bucket!r} is no name of a bucket; "
            "it has 2 to 63 letters, digits, dots, - and _"
        )
    prefix = path.removesuffix("/")
    fault = _fault_of_prefix(prefix)
    if fault:
        raise BadInputError(f"{setting} {uri!r}: {fault}")
    return bucket, prefix


def _fault_of_prefix(prefix: str) -> str | None:
    """Return why no store would give objects back under a prefix, or None."""
    if odd := [c for c in prefix if unicodedata.category(c) in ("Cc", "Cs")]:
        return f"the prefix holds {odd[0]!r}, which is no character of a name"
    if len(prefix.encode()) > MAX_PREFIX_BYTES:
        return f"the prefix has more than {MAX_PREFIX_BYTES} bytes"
    parts = prefix.split("/") if prefix else []
    if any(part in ("", ".", "..") for part in parts):
        return "a part of the prefix is empty, '.' or '..'; write it without"
    if any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        return f"a part of the prefix has more than {MAX_PART_BYTES} bytes"
    return None
