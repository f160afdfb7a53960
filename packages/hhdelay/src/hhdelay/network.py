"""From recipes to arrays: the wiring, and a batch of cells that an engine runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hhdelay.config.errors import need
from hhdelay.config.motif import Motif
from hhdelay.config.neuron import Neuron
from hhdelay.config.recipe import Recipe
from hhdelay.config.schema import leaves
from hhdelay.config.synapse import Synapse
from hhdelay.gates import Array
from hhdelay.membrane import rest, settled
from hhdelay.noise import Keys, Words

Integers = NDArray[np.int64]
NEVER = 2**62  # a step that no run reaches

# What may differ between the cells of one batch.
DELAYS = ("motif.delay_ms", "motif.delay_e_ms", "motif.link_delay_ms")
VARIES = (
    "neuron.I_uA_cm2", "motif.g_mS_cm2", "motif.link_g_mS_cm2", "noise.D_uA2_ms_cm4",
    "simulation.seed", "simulation.replicas", "simulation.start_V_mV",
)  # fmt: skip


class Wiring(NamedTuple):
    """Who listens to whom. N neurons, S sources, L links.

    Every neuron adds to one source, whose signal is the mean of s over its neurons: in populations the
    population, otherwise the neuron itself. A link leads from a source to a neuron.
    """

    source_of: Integers     # [N] source of each neuron
    source_size: Integers   # [S] neurons in each source
    link_source: Integers   # [L]
    link_target: Integers   # [L] ascending
    link_sign: Integers     # [L] 1 excites, -1 inhibits


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """C cells: runs with one wiring, membrane, kind of synapse, step and noise law, which differ in numbers.

    A cell is one point of a sweep with one replica. I_uA_cm2 here replaces neuron.I_uA_cm2.
    """

    neuron: Neuron
    synapse: Synapse
    wiring: Wiring
    dt_ms: float
    law: str
    quiet_from_step: int        # the noise acts in steps before this one
    keys: Keys                  # seed, cell, replica, each [C]
    start: Array                # [C, N, 4]: V in mV, m, h, n at step 0
    I_uA_cm2: Array             # [C]
    D_uA2_ms_cm4: Array         # [C]
    delay_steps: Integers       # [C, L]
    g_mS_cm2: Array             # [C, L]

    @property
    def cells(self) -> int:
        """C."""
        return len(self.I_uA_cm2)

    @property
    def neurons(self) -> int:
        """N."""
        return len(self.wiring.source_of)

    @property
    def history_steps(self) -> int:
        """Steps of s that the longest delay needs, the present one included."""
        return int(self.delay_steps.max(initial=0)) + 1


def assemble(recipes: Sequence[Recipe], cells: Sequence[int] | None = None) -> Batch:
    """One batch of all replicas of all recipes, recipe by recipe, replica by replica.

    cells   the number of each recipe's cell, which selects its noise (default 0, 1, 2, ...). In a sweep it
            must be the place in the whole grid, so that the result does not depend on the tiling
    raises  ConfigError where the recipes differ in more than delays, strengths, noise intensity, bias,
            start and seed
    """
    first, numbers = recipes[0], range(len(recipes)) if cells is None else cells
    common = shared(first)
    for one in recipes:
        need(shared(one) == common, "these recipes cannot run in one batch",
             fix="let them differ in delays, strengths, noise intensity, bias, start, seed")  # fmt: skip
    pairs = zip(recipes, numbers, strict=True)
    rows = [(one, cell, r) for one, cell in pairs for r in range(one.simulation.replicas)]
    wiring = wire(first.motif)
    off_ms, dt_ms = first.noise.off_after_ms, first.simulation.dt_ms

    def column(values: Sequence[int]) -> Words:
        return np.array(values, dtype=np.uint64)

    starts = {id(one): start_state(one) for one in recipes}
    return Batch(
        neuron=first.neuron,
        synapse=first.synapse,
        wiring=wiring,
        dt_ms=dt_ms,
        law=first.noise.law,
        quiet_from_step=round(off_ms / dt_ms) if off_ms else NEVER,
        keys=Keys(
            seed=column([one.simulation.seed for one, _, _ in rows]),
            cell=column([cell for _, cell, _ in rows]),
            replica=column([r for _, _, r in rows]),
        ),
        start=np.stack([starts[id(one)] for one, _, _ in rows]),
        I_uA_cm2=np.array([one.neuron.I_uA_cm2 for one, _, _ in rows]),
        D_uA2_ms_cm4=np.array([one.noise.D_uA2_ms_cm4 for one, _, _ in rows]),
        delay_steps=np.array([_delay_steps(one, wiring) for one, _, _ in rows], dtype=np.int64),
        g_mS_cm2=np.array([_strengths(one.motif, wiring) for one, _, _ in rows]),
    )


def wire(motif: Motif) -> Wiring:
    """The wiring of a motif, delays and strengths apart."""
    if motif.kind == "links":
        order = link_order(motif)
        own = np.arange(motif.neurons, dtype=np.int64)
        source, target, sign = (
            np.array([values[k] for k in order], dtype=np.int64)
            for values in (motif.link_from, motif.link_to, motif.link_sign)
        )
        return Wiring(own, np.ones_like(own), source, target, sign)
    half = motif.neurons // 2
    population = np.repeat(np.array([0, 1], dtype=np.int64), half)
    signs = {"EI": (1, -1), "II": (-1, -1), "EE": (1, 1)}[motif.kind]   # of the links that leave 0, 1
    source = 1 - population
    return Wiring(
        source_of=population,
        source_size=np.array([half, half], dtype=np.int64),
        link_source=source,
        link_target=np.arange(motif.neurons, dtype=np.int64),
        link_sign=np.array(signs, dtype=np.int64)[source],
    )


def link_order(motif: Motif) -> list[int]:
    """Of motif.kind "links": the recipe's links by target, as the arrays of a Batch hold them."""
    return sorted(range(len(motif.link_to)), key=lambda k: motif.link_to[k])


def observed(motif: Motif) -> tuple[int, ...]:
    """The neurons whose intervals make R: in EI the excitatory population, otherwise all.

    Between two maxima of R noise makes the inhibitory neuron fire where the excitatory one is held back, so
    the two have different intervals and pooling them would mix two laws.
    """
    return tuple(range(motif.neurons // 2 if motif.kind == "EI" else motif.neurons))


def start_state(recipe: Recipe) -> Array:
    """[N, 4]: rest at the bias, or the voltages of the recipe with settled gates."""
    given, neurons = recipe.simulation.start_V_mV, recipe.motif.neurons
    if given:
        return settled(np.broadcast_to(np.array(given), (neurons,)))
    return np.tile(_rest(recipe.neuron), (neurons, 1))


@lru_cache(maxsize=1024)
def _rest(neuron: Neuron) -> Array:
    """Rest at the neuron's own bias, found once for all points of a sweep that share it."""
    return rest(neuron, neuron.I_uA_cm2)


def neuron_signs(wiring: Wiring) -> Integers:
    """[N]: the sign of each neuron's links, which selects the rates of its s; 1 where it has none."""
    sign = np.ones(len(wiring.source_of), dtype=np.int64)
    for source, its in zip(wiring.link_source, wiring.link_sign, strict=True):
        sign[wiring.source_of == source] = its
    return sign


def shared(recipe: Recipe) -> tuple[Any, ...]:
    """What recipes must have in common to run in one batch: every setting but DELAYS and VARIES."""
    return tuple(getattr(getattr(recipe, table), key) for table, key in _common())


@cache
def _common() -> tuple[tuple[str, str], ...]:
    names = (name.partition(".") for name in leaves() if name not in {*DELAYS, *VARIES})
    return tuple((table, key) for table, _, key in names)


def _delay_steps(recipe: Recipe, wiring: Wiring) -> list[int]:
    motif, dt_ms = recipe.motif, recipe.simulation.dt_ms
    if motif.kind == "links":
        each = motif.link_delay_ms or (motif.delay_ms,) * len(motif.link_to)
        return [round(each[k] / dt_ms) for k in link_order(motif)]
    excitation = motif.delay_e_ms if motif.kind == "EI" else motif.delay_ms
    return [round((excitation if sign > 0 else motif.delay_ms) / dt_ms) for sign in wiring.link_sign]


def _strengths(motif: Motif, wiring: Wiring) -> list[float]:
    if motif.kind == "links" and motif.link_g_mS_cm2:
        return [motif.link_g_mS_cm2[k] for k in link_order(motif)]
    return [motif.g_mS_cm2] * len(wiring.link_sign)
