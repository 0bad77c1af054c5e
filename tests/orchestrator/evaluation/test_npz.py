"""Files of arrays that were damaged on the way, or are something else."""

import io

import numpy as np
import pytest

from orchestrator.evaluation.npz import read_npz

ARRAYS = {"sums": np.random.default_rng(0).normal(size=(20, 7)), "writer": np.array("ann")}


def packed(*, is_compressed: bool) -> bytes:
    """The arrays as a file."""
    body = io.BytesIO()
    save = np.savez_compressed if is_compressed else np.savez
    save(body, sums=ARRAYS["sums"], writer=ARRAYS["writer"])
    return body.getvalue()


@pytest.mark.parametrize("is_compressed", [True, False])
def test_a_flipped_bit_is_found_or_changes_nothing(is_compressed: bool) -> None:
    """Wherever it is: in the data, in zlib's codes, in the archive's own fields."""
    body, rng = packed(is_compressed=is_compressed), np.random.default_rng(1)
    told: list[str] = []
    for at in range(len(body)):
        damaged = bytearray(body)
        damaged[at] ^= 1 << int(rng.integers(8))
        try:
            found = read_npz(bytes(damaged))
        except ValueError as error:
            told.append(str(error))
            continue
        assert all(np.array_equal(found[name], ARRAYS[name]) for name in ARRAYS if name in found)
    assert len(told) > len(body) // 2
    assert all(line and "\n" not in line for line in told)


def test_other_files_are_refused() -> None:
    """One array alone, a text, half of the file, and none of it."""
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    whole = packed(is_compressed=True)
    for body in (array.getvalue(), b"mu,sigma", whole[: len(whole) // 2], b""):
        with pytest.raises(ValueError, match=r"\w"):
            read_npz(body)
