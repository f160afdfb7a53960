"""The one door to Numba: its decorators have no types, so they are wrapped here once.

Functions are compiled at their first call and the machine code is cached beside the source, or in the
user's cache folder where the source cannot be written. They release the interpreter's lock, so threads
may run them side by side. No fast-math: a result depends on nothing but its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """`function` as machine code, for scalars, arrays and named tuples of them."""
    return cast(Callable[P, R], njit(cache=True, nogil=True, error_model="numpy")(function))
