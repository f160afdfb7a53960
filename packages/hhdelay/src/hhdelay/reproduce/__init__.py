"""The claims of the abstract, each as a figure and a sentence of what was found."""

from __future__ import annotations

from hhdelay.reproduce.plan import full as full
from hhdelay.reproduce.plan import quick as quick
from hhdelay.reproduce.run import Gallery as Gallery
from hhdelay.reproduce.run import report as report
from hhdelay.reproduce.run import reproduce as reproduce
