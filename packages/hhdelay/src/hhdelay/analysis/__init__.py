"""Maxima of R, and the laws that say where they lie."""

from __future__ import annotations

from hhdelay.analysis.laws import Law as Law
from hhdelay.analysis.laws import law_of as law_of
from hhdelay.analysis.laws import resonances as resonances
from hhdelay.analysis.laws import spacing as spacing
from hhdelay.analysis.peaks import Peak as Peak
from hhdelay.analysis.peaks import find_peaks as find_peaks
from hhdelay.analysis.tongues import tongues as tongues
