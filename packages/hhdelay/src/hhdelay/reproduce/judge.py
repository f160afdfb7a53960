"""All claims, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hhdelay.reproduce.basis import textbook_neuron, time_step
from hhdelay.reproduce.coupling import alternating_phases, denser_in_inhibition, several_maxima
from hhdelay.reproduce.finding import TOO_SHORT, Evidence, Finding
from hhdelay.reproduce.noise_part import best_noise, one_neuron, searched, sustained_by_noise
from hhdelay.reproduce.robustness import delayed_excitation, more_neurons, stronger_noise

CLAIMS: tuple[Callable[[Evidence], Finding | None], ...] = (
    several_maxima, denser_in_inhibition, delayed_excitation, stronger_noise, more_neurons,     # the abstract
    sustained_by_noise, best_noise, searched, alternating_phases, one_neuron, textbook_neuron, time_step,
)  # fmt: skip


def findings(evidence: Evidence, *, judged: bool) -> list[Finding]:
    """What was found of each claim. Without `judged` the numbers stand, and every verdict is TOO_SHORT."""
    each = [claim(evidence) for claim in CLAIMS]
    found = [one for one in each if one is not None]
    return found if judged else [replace(one, verdict=TOO_SHORT) for one in found]
