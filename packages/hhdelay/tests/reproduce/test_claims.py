"""Each claim is found in data that show it, and not in data that do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hhdelay.check import Row
from hhdelay.plot.grid import Grid
from hhdelay.reproduce.basis import textbook_neuron, time_step
from hhdelay.reproduce.coupling import alternating_phases, denser_in_inhibition, several_maxima
from hhdelay.reproduce.finding import FOUND, NOT_FOUND, RESERVED, TOO_SHORT, Evidence, Finding, listed
from hhdelay.reproduce.judge import findings
from hhdelay.reproduce.noise_part import best_noise, one_neuron, searched, sustained_by_noise
from hhdelay.reproduce.robustness import delayed_excitation, more_neurons, stronger_noise

Make = Callable[..., Grid]
DELAYS = np.arange(0.0, 70.5, 0.5)
PANEL = np.arange(0.0, 60.5, 0.5)
STRENGTHS = np.arange(0.25, 4.25, 0.75)
D = np.array([0.5, 1.0, 2.0, 4.0, 8.0])
MANY_D = np.geomspace(0.25, 32.0, 9)
HUMP = 4 * np.exp(-(np.log(MANY_D / 4) ** 2))


def steep(delay_ms: Any, g_mS_cm2: Any) -> Any:
    return 1.2 * np.clip(g_mS_cm2 - 0.5, 0.0, 1.0)


def falling(D_uA2_ms_cm4: Any, delay_ms: Any) -> Any:
    return 1 / (1 + D_uA2_ms_cm4 / 8)


def strong(delay_ms: Any, g_mS_cm2: Any) -> Any:
    return g_mS_cm2 > 0.5


@pytest.fixture
def shown(make: Make) -> Evidence:
    """Data in which every claim of the abstract holds and firing goes on without noise."""
    grids = {}
    for kind in ("ei", "ii"):
        plane = {"motif.delay_ms": DELAYS, "motif.g_mS_cm2": STRENGTHS}
        grids[f"map-{kind}"] = make(kind, plane, height=steep, persists=strong)
        grids[f"line-{kind}"] = make(kind, {"motif.delay_ms": DELAYS})
        panel = {"noise.D_uA2_ms_cm4": D, "motif.delay_ms": PANEL}
        grids[f"noise-{kind}"] = make(kind, panel, height=falling)
        grids[f"best-{kind}"] = make(kind, {"noise.D_uA2_ms_cm4": MANY_D}, R=20 / MANY_D)
        for N in (10, 40):
            grids[f"size-{kind}-{N}"] = make(kind, {"motif.delay_ms": PANEL})
    sums = {"motif.delay_e_ms": np.array([0.0, 4.0, 8.0, 12.0]), "motif.delay_ms": PANEL}
    grids["delay-e"] = make("ei", sums)
    grids["best-single"] = make("single", {"noise.D_uA2_ms_cm4": MANY_D}, R=HUMP)
    steps = {"motif.delay_ms": np.array([9.0, 18.0]), "simulation.dt_ms": np.array([0.005, 0.01, 0.02])}
    grids["step"] = make("ei", steps)
    return Evidence(grids=grids, known=[Row("lower Hopf point, I", 9.779, 9.7793, 1e-3)])


def with_(evidence: Evidence, **grids: Grid) -> Evidence:
    return replace(evidence, grids={**evidence.grids, **{k.replace("_", "-"): v for k, v in grids.items()}})


def test_what_is_shown_is_found(shown: Evidence) -> None:
    verdicts = {one.name: one.verdict for one in findings(shown, judged=True)}
    assert verdicts == {
        "several-maxima": RESERVED, "denser-in-inhibition": RESERVED, "delayed-excitation": FOUND,
        "stronger-noise": FOUND, "more-neurons": FOUND, "sustained-by-noise": NOT_FOUND,
        "best-noise": NOT_FOUND, "alternating-phases": FOUND, "one-neuron": FOUND, "textbook-neuron": FOUND,
        "time-step": FOUND,
    }  # fmt: skip


def test_what_is_too_short_has_no_verdict(shown: Evidence) -> None:
    judged, short = findings(shown, judged=True), findings(shown, judged=False)
    assert {one.verdict for one in short} == {TOO_SHORT}
    assert [one.found for one in short] == [one.found for one in judged]


def test_every_finding_is_plain_json(shown: Evidence) -> None:
    for one in findings(shown, judged=True):
        assert json.loads(json.dumps(one.plain(), allow_nan=False))["name"] == one.name
        assert one.claim.endswith(".") and one.criterion.endswith(".") and one.found.endswith(".")


def test_no_tongues(shown: Evidence, make: Make) -> None:
    flat = {"map_ei": make("ei", {"motif.delay_ms": DELAYS, "motif.g_mS_cm2": STRENGTHS}, height=0.0),
            "line_ei": make("ei", {"motif.delay_ms": DELAYS}, height=0.0)}  # fmt: skip
    found = several_maxima(with_(shown, **flat))
    assert found.verdict == NOT_FOUND and "R has 0 maxima, at no delay" in found.found
    assert found.numbers["several_from"] is None


def test_tongues_without_a_tip(shown: Evidence, make: Make) -> None:
    """Maxima at every strength, the weakest included: not what the abstract says."""
    everywhere = make("ei", {"motif.delay_ms": DELAYS, "motif.g_mS_cm2": STRENGTHS}, height=1.0)
    assert several_maxima(with_(shown, map_ei=everywhere)).verdict == NOT_FOUND


def test_tongues_that_noise_sustains(shown: Evidence, make: Make) -> None:
    line = make("ei", {"motif.delay_ms": DELAYS}, persists=0.0)
    found = several_maxima(with_(shown, line_ei=line))
    assert found.verdict == FOUND and "At none of these maxima" in found.found
    plane = {"motif.delay_ms": DELAYS, "motif.g_mS_cm2": STRENGTHS}
    maps = {f"map_{kind}": make(kind, plane, height=steep, persists=0.0) for kind in ("ei", "ii")}
    assert sustained_by_noise(with_(shown, **maps)).verdict == FOUND
    assert sustained_by_noise(with_(shown, map_ei=maps["map_ei"])).verdict == RESERVED


def test_one_replica_that_fires_on_is_enough(shown: Evidence, make: Make) -> None:
    plane = {"motif.delay_ms": DELAYS, "motif.g_mS_cm2": STRENGTHS}

    def one(delay_ms: Any, g_mS_cm2: Any) -> Any:
        return 0.25 * (delay_ms == 9)

    some = {f"map_{kind}": make(kind, plane, height=steep, persists=one) for kind in ("ei", "ii")}
    assert sustained_by_noise(with_(shown, **some)).verdict == NOT_FOUND


def test_inhibition_that_is_no_denser(shown: Evidence, make: Make) -> None:
    found = denser_in_inhibition(with_(shown, line_ii=make("ei", {"motif.delay_ms": DELAYS})))
    assert found.verdict == NOT_FOUND and "1.00 ± 0.00 times as dense" in found.found
    none = denser_in_inhibition(with_(shown, line_ii=make("ii", {"motif.delay_ms": DELAYS}, height=0.0)))
    assert none.verdict == NOT_FOUND and "need two maxima" in none.found


PHASES = {
    "one phase": ({"phase": 0.5}, NOT_FOUND),
    "no phase": ({"phase": 0.25}, NOT_FOUND),
    "not firmly locked": ({"locking": 0.6}, RESERVED),
}


@pytest.mark.parametrize("case", PHASES)
def test_phases(case: str, shown: Evidence, make: Make) -> None:
    fields, verdict = PHASES[case]
    line = make("ii", {"motif.delay_ms": DELAYS}, **fields)
    assert alternating_phases(with_(shown, line_ii=line)).verdict == verdict


def test_the_shift_is_measured(shown: Evidence, make: Make) -> None:
    found = delayed_excitation(shown)
    assert np.allclose(found.numbers["shift_ms"], [0, 4, 8, 12], atol=0.05)
    assert max(found.numbers["rms_ln_R_at_equal_sum"]) < 1e-6
    still = {"motif.delay_e_ms": np.array([0.0, 4.0]), "motif.delay_ms": PANEL}
    R = 4 * np.exp(np.cos(2 * np.pi * PANEL / 17))
    found = delayed_excitation(with_(shown, delay_e=make("ei", still, R=np.stack([R, R]))))
    assert found.verdict == NOT_FOUND and found.numbers["shift_ms"] == [0.0, 0.0]


def test_noise_that_wipes_the_maxima_out(shown: Evidence, make: Make) -> None:
    panel = {"noise.D_uA2_ms_cm4": D, "motif.delay_ms": PANEL}
    gone = make("ei", panel, height=lambda D_uA2_ms_cm4, delay_ms: 1.0 * (D_uA2_ms_cm4 < 4))
    found = stronger_noise(with_(shown, noise_ei=gone))
    assert found.verdict == NOT_FOUND and "Lost are 3 of 3 with EI at D = 4" in found.found
    assert "noise only lowers it" in stronger_noise(shown).found
    rising = make("ei", panel, height=lambda D_uA2_ms_cm4, delay_ms: D_uA2_ms_cm4 / 8 + 0.5)
    assert "it does not only fall" in stronger_noise(with_(shown, noise_ei=rising)).found


def test_neurons_that_lose_or_move_a_maximum(shown: Evidence, make: Make) -> None:
    axis = {"motif.delay_ms": PANEL}
    comb = 4 * np.exp(np.cos(2 * np.pi * (PANEL + 7.7) / 17))
    lost = make("ei", axis, R=np.where(PANEL < 20, 1.4, comb))
    found = more_neurons(with_(shown, size_ei_40=lost))
    assert found.verdict == RESERVED and "1 of 3 with EI of 40" in found.found
    moved = make("ei", axis, R=4 * np.exp(np.cos(2 * np.pi * (PANEL + 1) / 17)))
    found = more_neurons(with_(shown, size_ei_40=moved))
    assert found.verdict == NOT_FOUND and "There are others at" in found.found


def test_an_optimum_has_to_be_beyond_doubt(shown: Evidence, make: Make) -> None:
    axis = {"noise.D_uA2_ms_cm4": MANY_D}
    peak = make("ei", axis, R=HUMP)
    assert best_noise(with_(shown, best_ei=peak)).verdict == RESERVED
    assert best_noise(with_(shown, best_ei=peak, best_ii=peak)).verdict == FOUND
    falls = make("single", axis, R=20 / MANY_D)
    assert one_neuron(with_(shown, best_single=falls)).verdict == NOT_FOUND
    assert "falls with the noise all the way" in one_neuron(with_(shown, best_single=falls)).found
    faint = make("single", axis, R=lambda D_uA2_ms_cm4: 4 + 0.1 * (D_uA2_ms_cm4 == 2))
    assert one_neuron(with_(shown, best_single=faint)).verdict == NOT_FOUND
    nothing = make("single", axis, R=np.nan)
    assert one_neuron(with_(shown, best_single=nothing)).found == "R is nowhere known."


def test_the_step_and_the_neuron(shown: Evidence, make: Make) -> None:
    axes = {"motif.delay_ms": np.array([9.0, 18.0]), "simulation.dt_ms": np.array([0.005, 0.01, 0.02])}
    coarse = make("ei", axes, mean_ms=lambda delay_ms, dt_ms: 17 * (1 + dt_ms))
    assert time_step(with_(shown, step=coarse)).verdict == NOT_FOUND
    wrong = Row("lower Hopf point, I", 9.779, 9.9, 1e-3)
    found = textbook_neuron(replace(shown, known=[*shown.known, wrong]))
    assert found.verdict == NOT_FOUND and "1 of 2 known values" in found.found
    assert textbook_neuron(replace(shown, known=[])).verdict == NOT_FOUND


@pytest.mark.parametrize(("confirmed", "verdict"), [(0, NOT_FOUND), (2, FOUND)])
def test_a_search_is_a_finding(confirmed: int, verdict: str, shown: Evidence) -> None:
    assert searched(shown) is None
    scan = {"settings": 2400, "candidates": 7, "confirmed": confirmed, "refined": [{}] * 7}
    found = searched(replace(shown, search=scan))
    assert isinstance(found, Finding) and found.verdict == verdict
    assert found.found.startswith("Of 2400 settings 7 looked so")


def test_a_list_in_a_sentence() -> None:
    assert [listed(x) for x in ([], [1], [1, 2], [1, 2, float("nan")])] == ["none", "1.0", "1.0 and 2.0",
                                                                           "1.0, 2.0 and -"]  # fmt: skip
