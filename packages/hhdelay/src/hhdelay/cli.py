"""The command `hhdelay`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from hhdelay import __doc__ as PURPOSE
from hhdelay import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: that of the process); exit status 2 for an unknown option."""
    parser = argparse.ArgumentParser(prog="hhdelay", description=PURPOSE)
    parser.add_argument("--version", action="version", version=f"hhdelay {__version__}")
    parser.parse_args(argv)
    parser.print_help()
    return 0
