"""Keep freed memory in the process instead of giving it back after every large tensor.

The C library maps every block above 32 MiB anew and unmaps it when it is freed, so each large tensor pays for
its page faults again. Told not to, it reuses what it has; the process keeps its peak until it ends.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of glibc
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
