"""What was published of runs that a plan can be held against.

The steady state is of the trace that H800's rates are from, so a plan agrees with it by construction. The
hours of the run are no input of anything.
"""

from __future__ import annotations

from typing import NamedTuple

HOURS_PER_TRILLION = "180K H800 GPU-hours per trillion tokens: DeepSeek-V3 report, 1 and table 1"
TRACE = ("4,096 tokens in 129 ms (16 stages): train.json of github.com/deepseek-ai/profile-data, "
         "4 layers a chunk, routing drawn evenly")  # fmt: skip


class Published(NamedTuple):
    """Tokens a second of a GPU; in a pipeline that never waits, and over the whole run."""

    layers_a_stage: int
    steady: float
    steady_source: str
    run: float
    run_source: str


PUBLISHED = {
    ("v3", "H800", 2048): Published(4, 4096 / 0.129 / 16, TRACE, 1e12 / 180e3 / 3600, HOURS_PER_TRILLION),
}
