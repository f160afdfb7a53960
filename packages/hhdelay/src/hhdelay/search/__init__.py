"""A scan for regimes with several maxima in the delay that do not fire on by themselves."""

from __future__ import annotations

from hhdelay.search.report import text as text
from hhdelay.search.run import search as search
