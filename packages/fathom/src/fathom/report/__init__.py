"""One page about one run or several: curves, expert loads, samples, settings. A single file, no torch."""

from fathom.report.build import build_report as build_report
from fathom.report.write import write_report as write_report
