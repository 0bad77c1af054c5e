"""Which version of the arithmetic this is: what stored checkpoints and sample sets were made with.

Raise `BITS_VERSION` by hand whenever the same settings give other bits than before: other noise,
another order of images, another rounding on a path that was there already. What is new and off by
default raises nothing, nor does a file that moves. `tests/ddpm/test_bits.py` holds the bits.
"""

from collections.abc import Mapping

BITS_VERSION = 1

# Before there was a version, a hash over the sources was stored: that of `ddpm/` in sample sets,
# that of both packages in trainings. These are of the last sources of that time.
_VERSION_OF_SOURCES = {
    "b86dbc3e67d6f763bb9511f52aaecab5ba43c7c8e1a28d29b992c67aacadb888": 1,
    "941a01586acd4625c1715c376a291e5691fa396c08393131084ec8204e157e0a": 1,
}


def bits_version_of(decisions: Mapping[str, object]) -> int | None:
    """Return the version of the arithmetic that decisions were made under, or None if unknown.

    Args:
        decisions: With `bits_version`, or, of earlier times, `code_sha256`.
    """
    version = decisions.get("bits_version")
    if isinstance(version, int):
        return version
    return _VERSION_OF_SOURCES.get(str(decisions.get("code_sha256")))
