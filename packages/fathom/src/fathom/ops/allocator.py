"""How the process holds memory: freed blocks kept for reuse, and large blocks in large pages.

The C library maps every block above 32 MiB anew and unmaps it when it is freed, so each large tensor pays for
its page faults again. Told not to, it reuses what it has; the process keeps its peak until it ends.

Where Linux gives large pages only to those who ask ("madvise", a common setting), weights lie in pages of 4
KiB, and reading them once per token spends up to half of its time on finding out where those are.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of glibc
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25  # mman.h of Linux; collapsing came with 6.1
LARGE = 2 << 20  # bytes of a large page
NEVER = 2**31 - 1


def keep_memory() -> bool:
    """Ask glibc never to unmap or trim; whether it agreed. Elsewhere nothing happens.

    To be called before the first large tensor: what is mapped already stays as it is.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))


def large_pages() -> None:
    """Move what this process holds into large pages, where Linux can; memory not touched yet stays so.

    To be called when the weights are in their places: it copies them once.
    """
    if not sys.platform.startswith("linux"):
        return
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is None:
        return
    for first, last in _private_memory():
        where = ctypes.c_void_p(first), ctypes.c_size_t(last - first)
        if madvise(*where, MADV_HUGEPAGE) == 0:
            madvise(*where, MADV_COLLAPSE)  # refused before Linux 6.1: then the kernel gets there in time


def _private_memory() -> list[tuple[int, int]]:
    """Addresses of writable memory that belongs to no file, as far as it holds whole large pages."""
    found = []
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        where, rights, _, _, _, *name = line.split(maxsplit=5)
        first, last = (int(address, 16) for address in where.split("-"))
        first, last = -(-first // LARGE) * LARGE, last // LARGE * LARGE
        if rights == "rw-p" and last > first and (not name or name[0].strip() == "[heap]"):
            found.append((first, last))
    return found
