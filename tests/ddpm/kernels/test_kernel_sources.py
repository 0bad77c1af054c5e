"""The C++ of the kernels, as far as it can be looked at on a machine without AMX."""

import ctypes
import shutil

import pytest

from ddpm.errors import KernelError
from ddpm.kernels.amx import structs
from ddpm.kernels.amx.kernels import check_sizes
from tests.support.amx import kernels_compiled_in_a_hurry

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    """The kernels, compiled in a hurry: the last -O counts."""
    return ctypes.CDLL(str(kernels_compiled_in_a_hurry()))


def test_kernels_compile_and_their_structs_are_as_long_as_the_mirrors_here(
    library: ctypes.CDLL,
) -> None:
    """Without AMX nothing else looks at them, and a machine with it would compute nonsense."""
    check_sizes(library)


def test_a_struct_of_another_size_is_refused_before_it_is_used(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A field that one side lacks would be read from whatever lies behind."""

    class Shorter(ctypes.Structure):
        _fields_ = structs.LayerStruct._fields_[:-1]

    monkeypatch.setitem(structs.STRUCTS, "Layer", Shorter)
    with pytest.raises(KernelError, match=r"Layer has \d+ bytes in the compiled AMX kernels"):
        check_sizes(library)


def test_every_struct_that_crosses_is_compared() -> None:
    """A new one that nobody lists would not be looked at."""
    mirrors = {
        kind
        for kind in vars(structs).values()
        if isinstance(kind, type) and issubclass(kind, ctypes.Structure)
    }
    assert mirrors == set(structs.STRUCTS.values())
