"""Found first by a process whose PYTHONPATH names this folder: its clocks are off by what a file says.

SOAK_CLOCK names a file of two doubles: seconds added to `time.time` and to `time.monotonic`. It is read at
every look at the clock, so that whoever writes to it makes them jump. What the kernel waits for (select,
a lock) is not touched: a jump is seen once the wait is over, as it would be after a suspend.
"""

from __future__ import annotations

import mmap
import os
import struct
import time

with open(os.environ["SOAK_CLOCK"], "rb") as _file:
    _offsets = mmap.mmap(_file.fileno(), 16, access=mmap.ACCESS_READ)
_wall, _steady = time.time, time.monotonic


def _time() -> float:
    return _wall() + struct.unpack_from("<d", _offsets, 0)[0]


def _monotonic() -> float:
    return _steady() + struct.unpack_from("<d", _offsets, 8)[0]


time.time, time.monotonic = _time, _monotonic
