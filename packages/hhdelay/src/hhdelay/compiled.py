"""The one door to Numba: its decorators have no types, so they are wrapped here once.

Functions are compiled at their first call and the machine code is cached beside the source, or in the
user's cache folder where the source cannot be written. They release the interpreter's lock, so threads
may run them side by side. No fast-math: a result depends on nothing but its arguments. Only `inlined` lets
a multiply and an add fuse, which rounds once less, the same on every run of a machine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import carray, njit, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")

PACKAGE = Path(__file__).parent


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """`function` as machine code, for scalars, arrays and named tuples of them."""
    made = njit(cache=True, nogil=True, error_model="numpy")(function)
    index = getattr(getattr(made, "_cache", None), "_cache_file", None)     # None where nothing is cached
    if index is not None:
        index._source_stamp = source_stamp()
    return cast(Callable[P, R], made)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """`function` for use inside other compiled ones only: set in where it is called, so that a loop over
    array lanes becomes vector instructions. A multiply and the add that follows may fuse into one rounding.
    """
    made = njit(nogil=True, error_model="numpy", fastmath={"contract"}, forceinline=True)(function)
    return cast(Callable[P, R], made)


@intrinsic(prefer_literal=True)
def _stack_floats(_: Any, count: Any) -> Any:
    """A pointer to `count` float64 on the stack of the compiled function that it stands in."""

    def place(_: Any, builder: Any, __: Any, ___: Any) -> Any:
        floats = cgutils.alloca_once(  # type: ignore[no-untyped-call]
            builder, ir.ArrayType(ir.DoubleType(), count.literal_value)
        )
        return builder.bitcast(floats, ir.DoubleType().as_pointer())

    return types.CPointer(types.float64)(count), place  # type: ignore[no-untyped-call]


stack_floats = cast(Callable[[int], Any], _stack_floats)
"""A pointer to so many float64, a constant of the module, on the stack of a `compiled` function; not of an
`inlined` one, whose stack ends with it. LLVM knows that no array that was handed in lies there."""

as_array = cast(Callable[[Any, int], NDArray[np.float64]], carray)
"""The array [count] at a pointer, in compiled code."""


@cache
def source_stamp() -> str:
    """A digest of the package's sources, by which cached machine code is known to be of the present ones.

    Numba itself looks at the file of the function alone: code whose callee in another file had changed
    would be taken as it was, with arguments that no longer fit.
    """
    digest = sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] not in NEVER_COMPILED:
            digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


NEVER_COMPILED = {"analysis", "cli", "plot", "reproduce", "search", "store", "sweep"}
