"""What a table costs: time, waiting, memory; and what the report's table 2 says it should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fathom.schedule.op import Schedule
from fathom.schedule.place import Timeline, Times


@dataclass(frozen=True)
class Figures:
    """Of one timeline; times in its unit."""

    schedule: str
    ranks: int
    micro_batches: int
    stages: int
    makespan: float
    idle_share: float  # of all ranks' time
    bubbles: tuple[float, ...]  # idle time of each rank
    bubble_by_formula: float
    peak_activations: tuple[int, ...]  # of each rank, in micro-batches times stages
    weight_copies: int  # ranks that hold the same stage


def figures(timeline: Timeline) -> Figures:
    """All of them."""
    schedule = timeline.schedule
    return Figures(
        schedule.name, schedule.ranks, schedule.micros, schedule.stages, timeline.makespan,
        timeline.idle_share, timeline.bubbles, bubble_by_formula(schedule, timeline.times),
        peak_activations(schedule), weight_copies(schedule),
    )  # fmt: skip


def bubble_by_formula(schedule: Schedule, times: Times) -> float:
    """Idle time of the rank that waits longest, as the report's table 2 gives it; PP there are stages here.

    guarantee   for 1F1B and GPipe always; ZB1P where W <= F and W <= I and there are as many micro-batches as
                ranks; DualPipe(V) where F = W = I, and never exceeded where F <= I and W <= I
                (I = backward - weight; transfers take no time)
    """
    whole = times.forward + times.backward
    if schedule.name == "zb1p":
        return (schedule.stages - 1) * (whole - 2 * times.weight)
    if schedule.name in ("dualpipe", "dualpipev"):
        return (schedule.stages / 2 - 1) * (times.pair + times.backward - 3 * times.weight)
    return (schedule.stages - 1) * whole


def peak_activations(schedule: Schedule, *, until_weights: bool = True) -> tuple[int, ...]:
    """The most that each rank keeps at once, in micro-batches times stages.

    A micro-batch counts from the start of its "F" in a stage to the end of its "B" there, or of its "W": the
    gradient of a weight needs the input that it was multiplied with. Without `until_weights` it counts to the
    end of "B" or "I". In a pair the forward's is there before the backward's goes.
    """
    ones = [1.0] * schedule.stages
    return tuple(round(peak) for peak in peak_held(schedule, ones, until_weights=until_weights))


def peak_held(
    schedule: Schedule, size_of_stage: Sequence[float], *, until_weights: bool = True
) -> tuple[float, ...]:
    """The same where a micro-batch weighs as much as the stage that it is kept in."""
    ends = {"B", "W"} if until_weights else {"B", "I"}
    peaks = []
    for order in schedule.orders:
        kept = peak = 0.0
        for item in order:
            kept += sum(size_of_stage[op.stage] for op in item if op.kind == "F")
            peak = max(peak, kept)
            kept -= sum(size_of_stage[op.stage] for op in item if op.kind in ends)
        peaks.append(peak)
    return tuple(peaks)


def weight_copies(schedule: Schedule) -> int:
    """Ranks that hold the same stage."""
    held = Counter(stage for rank in range(schedule.ranks) for stage in schedule.stages_of(rank))
    return max(held.values())
