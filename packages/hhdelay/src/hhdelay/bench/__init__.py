"""The engines beside Brian2 and beside the processor's limit: the same map by both, in one run."""

from __future__ import annotations

from hhdelay.bench.environment import find as find
from hhdelay.bench.environment import make as make
from hhdelay.bench.plan import full as full
from hhdelay.bench.plan import quick as quick
from hhdelay.bench.report import Report as Report
from hhdelay.bench.report import run as run
from hhdelay.bench.report import text as text
