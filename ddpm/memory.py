"""How a process keeps its memory on a CPU: nothing is given back, and pages are large.

A training step takes and frees the same hundreds of megabytes as the one before. Given back and
taken anew, each page costs a page fault and is written with zeros. And a pass over as much memory
looks tens of thousands of small pages up, which on virtual machines is twice the work.

Only glibc has these settings (mallopt(3)), and only Linux large pages (madvise(2)).
"""

import ctypes
import os
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_MADV_HUGEPAGE = 14  # of sys/mman.h
_LARGE_PAGE = 2 << 20
_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
_STRICT = "2"  # what a process could use is then taken from all others


def keep_memory() -> None:
    """Have the C library keep what this process frees, on large pages where the system has them.

    Memory that was taken before stays as it is, and none is taken now.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)
    if _OVERCOMMIT.exists() and _OVERCOMMIT.read_text().strip() != _STRICT:
        _ask_for_large_pages(libc, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)


def _ask_for_large_pages(libc: ctypes.CDLL, num_bytes: int) -> None:
    """Mark the addresses that the next allocations will get.

    A block of them is taken, marked and freed, which leaves them with the C library; no page of it
    is touched. Where the system grants no block of this size, pages stay small.
    """
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    block = libc.malloc(num_bytes)
    if block is None:
        return
    start = -(-block // _LARGE_PAGE) * _LARGE_PAGE
    end = (block + num_bytes) // _LARGE_PAGE * _LARGE_PAGE
    libc.madvise(start, end - start, _MADV_HUGEPAGE)
    libc.free(block)
