"""Pictures of runs and sweeps, as PNG, SVG or PDF."""

from __future__ import annotations

from hhdelay.plot.firing import rate_figure as rate_figure
from hhdelay.plot.lines import coherence_lines as coherence_lines
from hhdelay.plot.lines import panels as panels
from hhdelay.plot.lines import phase_lines as phase_lines
from hhdelay.plot.map import coherence_map as coherence_map
from hhdelay.plot.run import histogram as histogram
from hhdelay.plot.run import raster as raster
from hhdelay.plot.run import voltage as voltage
from hhdelay.plot.save import save as save
from hhdelay.plot.saved import read_run as read_run
