"""The tables by name, and what each needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fathom.config.errors import choose_from, need
from fathom.schedule.dualpipe import dualpipe, dualpipev
from fathom.schedule.one_f_one_b import gpipe, one_f_one_b
from fathom.schedule.op import Schedule
from fathom.schedule.zero_bubble import zb1p

SCHEDULES: Mapping[str, Callable[[int, int], Schedule]] = {
    "gpipe": gpipe,
    "1f1b": one_f_one_b,
    "zb1p": zb1p,
    "dualpipe": dualpipe,
    "dualpipev": dualpipev,
}
LARGEST = 200_000  # ranks x micro-batches; the report's 16 x 120 is 1,920


def build(name: str, ranks: int, micros: int) -> Schedule:
    """The table of this name for `ranks` pipeline ranks and `micros` micro-batches per step.

    errors      ConfigError with the number to change, where the table does not exist
    """
    need(name in SCHEDULES, f"there is no schedule {name!r}", fix=choose_from(name, list(SCHEDULES)))
    need(ranks >= 1, f"a pipeline of {ranks} ranks does nothing", fix="set ranks to 1 or more")
    need(micros >= 1, f"{micros} micro-batches are no work", fix="set micro-batches to 1 or more")
    need(
        ranks * micros <= LARGEST,
        f"{ranks:,} ranks x {micros:,} micro-batches are more than {LARGEST:,}",
        fix=f"set micro-batches to {max(1, LARGEST // ranks):,} or less, or use fewer ranks",
    )
    if name == "dualpipe":
        even = f"set ranks to {ranks + 1}" if ranks == 1 else f"set ranks to {ranks - 1} or {ranks + 1}"
        need(ranks % 2 == 0, f"dualpipe needs an even number of ranks, not {ranks}", fix=even)
    if name in ("dualpipe", "dualpipev"):
        least = 2 * ranks
        need(
            micros >= least,
            f"{name} on {ranks} ranks needs at least {least} micro-batches, not {micros}",
            fix=f"set micro-batches to {least}",
        )
    if name == "dualpipe":
        need(
            micros % 2 == 0,
            f"dualpipe needs an even number of micro-batches, not {micros}",
            fix=f"set micro-batches to {micros + 1}",
        )
    return SCHEDULES[name](ranks, micros)
