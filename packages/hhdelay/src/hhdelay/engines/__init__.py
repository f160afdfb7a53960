"""Engines: one meaning, several speeds."""

from __future__ import annotations

from hhdelay.engines.choose import ENGINES as ENGINES
from hhdelay.engines.choose import engine as engine
from hhdelay.engines.protocol import Engine as Engine
from hhdelay.engines.protocol import Run as Run
from hhdelay.engines.protocol import Snapshot as Snapshot
