"""Recipes become the arrays that the motif promises."""

from __future__ import annotations

import numpy as np
import pytest

from hhdelay.config.errors import ConfigError
from hhdelay.config.load import load_recipe
from hhdelay.network import NEVER, assemble, neuron_signs, wire

DELAYS = ("motif.delay_ms=9", "motif.delay_e_ms=4", "simulation.replicas=1")


def test_ei_excites_after_delay_e_and_inhibits_after_delay() -> None:
    batch = assemble([load_recipe("ei", DELAYS)])
    assert batch.wiring.link_source.tolist() == [1, 0]      # into neuron 0, into neuron 1
    assert batch.wiring.link_sign.tolist() == [-1, 1]
    assert batch.delay_steps.tolist() == [[900, 400]]
    assert batch.history_steps == 901
    assert neuron_signs(batch.wiring).tolist() == [1, -1]


@pytest.mark.parametrize(("kind", "sign"), [("ii", -1), ("ee", 1)])
def test_pairs_of_one_kind(kind: str, sign: int) -> None:
    batch = assemble([load_recipe(kind, ["motif.delay_ms=3", "simulation.replicas=1"])])
    assert batch.wiring.link_sign.tolist() == [sign, sign]
    assert batch.delay_steps.tolist() == [[300, 300]]


def test_a_population_feels_the_mean_of_the_other() -> None:
    wiring = wire(load_recipe("ei", ["motif.neurons=6"]).motif)
    assert wiring.source_of.tolist() == [0, 0, 0, 1, 1, 1]
    assert wiring.source_size.tolist() == [3, 3]
    assert wiring.link_source.tolist() == [1, 1, 1, 0, 0, 0]
    assert wiring.link_sign.tolist() == [-1, -1, -1, 1, 1, 1]


def test_links_are_ordered_by_target_with_what_is_theirs() -> None:
    given = ["motif.kind=links", "motif.neurons=3", "motif.link_from=0,1,2,0", "motif.link_to=2,0,1,1",
             "motif.link_sign=1,-1,1,1", "motif.link_delay_ms=1,2,3,4", "simulation.replicas=1"]  # fmt: skip
    batch = assemble([load_recipe("ei", ["motif.delay_ms=0", *given])])
    assert batch.wiring.link_target.tolist() == [0, 1, 1, 2]
    assert batch.wiring.link_source.tolist() == [1, 2, 0, 0]
    assert batch.delay_steps.tolist() == [[200, 300, 400, 100]]
    assert batch.g_mS_cm2.tolist() == [[2.0] * 4]


def test_a_batch_holds_recipes_by_replicas_with_their_own_numbers() -> None:
    recipes = [load_recipe("ii", [f"motif.delay_ms={d}", f"motif.g_mS_cm2={g}", f"neuron.I_uA_cm2={bias}",
                                  f"noise.D_uA2_ms_cm4={d}", f"simulation.seed={d}", "simulation.replicas=2"])
               for d, g, bias in ((1, 3, 4), (2, 5, 6))]  # fmt: skip
    batch = assemble(recipes, [17, 4])
    assert batch.keys.cell.tolist() == [17, 17, 4, 4]
    assert batch.keys.replica.tolist() == [0, 1, 0, 1]
    assert batch.keys.seed.tolist() == [1, 1, 2, 2]
    assert batch.delay_steps[:, 0].tolist() == [100, 100, 200, 200]
    assert batch.g_mS_cm2[:, 0].tolist() == [3.0, 3.0, 5.0, 5.0]
    assert batch.I_uA_cm2.tolist() == [4.0, 4.0, 6.0, 6.0]
    assert batch.D_uA2_ms_cm4.tolist() == [1.0, 1.0, 2.0, 2.0]
    assert batch.start[0, 0, 0] < batch.start[2, 0, 0], "rest belongs to the bias"
    assert batch.quiet_from_step == NEVER


@pytest.mark.parametrize("other", [
    "motif.kind=EE", "simulation.dt_ms=0.02", "neuron.g_K_mS_cm2=35", "noise.law=triangular",
    "synapse.K_mV=4", "motif.neurons=4", "noise.off_after_ms=5",
])  # fmt: skip
def test_what_a_batch_shares_must_be_the_same(other: str) -> None:
    with pytest.raises(ConfigError, match="cannot run in one batch. Fix: "):
        assemble([load_recipe("ii"), load_recipe("ii", [other])])


def test_starts() -> None:
    resting = assemble([load_recipe("ii", ["neuron.I_uA_cm2=0"])]).start
    np.testing.assert_allclose(resting[..., 0], -64.99972, atol=1e-5)
    given = assemble([load_recipe("ii", ["simulation.start_V_mV=-70,-50"])]).start
    assert given[0, :, 0].tolist() == [-70.0, -50.0]
    one = assemble([load_recipe("ii", ["simulation.start_V_mV=-70"])]).start
    assert one[0, :, 0].tolist() == [-70.0, -70.0]
