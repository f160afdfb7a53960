"""`python -m hhdelay`, the same as the command `hhdelay`."""

from __future__ import annotations

import sys

from hhdelay.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
