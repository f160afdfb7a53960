"""What goes wrong through no fault of the program: one line that names it and ends with the fix."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

LONGEST_QUOTE = 60  # characters of a wrong value that a message repeats; enough to recognise it


class HHDelayError(Exception):
    """A message for the person at the keyboard; the command line prints it without a traceback."""

    exit_code = 1


class ConfigError(HHDelayError):
    """A setting, a file or an argument that cannot be used; exit status 2."""

    exit_code = 2


class StepError(HHDelayError):
    """A time step so large that the integration left the finite numbers; exit status 2."""

    exit_code = 2


def need(ok: bool, what: str, *, fix: str, error: type[HHDelayError] = ConfigError) -> None:
    """Raise `error` with "`what`. Fix: `fix`" unless `ok`."""
    if not ok:
        raise error(f"{what}. Fix: {fix}")


def quoted(value: object) -> str:
    """`value` as a message repeats it: its repr on one printable line, cut to LONGEST_QUOTE."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # a whole number above 4300 digits refuses its repr
        text = f"<{type(value).__name__}>"
    text = text if len(text) <= LONGEST_QUOTE else f"{text[: LONGEST_QUOTE - 3]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def plain(name: str) -> str:
    """A file's or a key's name for a message: as it is where it fits one short line, quoted otherwise."""
    return name if name.isprintable() and 0 < len(name) <= 4 * LONGEST_QUOTE else quoted(name)


def choose_from(name: str, known: Sequence[str]) -> str:
    """The fix for an unknown name: the nearest known one first, then all of them."""
    near = get_close_matches(name[: 4 * LONGEST_QUOTE], known, n=1)
    return (f"use {near[0]}, the nearest; known are " if near else "use one of ") + ", ".join(known)
