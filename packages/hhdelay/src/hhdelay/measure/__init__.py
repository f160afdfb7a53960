"""From spikes to numbers: what is counted while a run goes on, and what is said of it afterwards."""

from __future__ import annotations

from hhdelay.measure.coherence import Coherence as Coherence
from hhdelay.measure.coherence import coherence as coherence
from hhdelay.measure.recorder import Recorder as Recorder
from hhdelay.measure.spikes import Spikes as Spikes
from hhdelay.measure.tally import Tally as Tally
from hhdelay.measure.tally import merge as merge
