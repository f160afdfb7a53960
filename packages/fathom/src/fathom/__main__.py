"""`python -m fathom`, the same as the command `fathom`."""

from __future__ import annotations

import sys

from fathom.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
