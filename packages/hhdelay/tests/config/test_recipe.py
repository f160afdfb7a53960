"""Nonsense never builds, and the message says what to do."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest

from hhdelay.config.errors import ConfigError
from hhdelay.config.load import RECIPES, load_recipe, recipe_text, to_toml
from hhdelay.config.motif import Motif, motif_of
from hhdelay.config.neuron import Neuron
from hhdelay.config.noise import Noise
from hhdelay.config.recipe import Recipe
from hhdelay.config.schema import leaves
from hhdelay.config.simulation import Simulation
from hhdelay.config.synapse import SYNAPSES, Synapse

SECTIONS = {"neuron": Neuron, "synapse": Synapse, "motif": Motif, "noise": Noise, "simulation": Simulation}
SETTINGS = [(name, f.name) for name, section in SECTIONS.items() for f in fields(section)]


@pytest.mark.parametrize(("table", "name"), SETTINGS)
@pytest.mark.parametrize("nonsense", [None, "many", float("nan"), True, [True], 1e400, object()])
def test_nonsense_never_builds(table: str, name: str, nonsense: object) -> None:
    with pytest.raises(ConfigError, match=rf"{table}\.{name}=.*Fix: "):
        SECTIONS[table](**{name: nonsense})


BAD = {
    "motif.delay_ms=-1": r"motif\.delay_ms=-1\.0 is below 0\. Fix: set it to 0 or more",
    "motif.delay_ms=0.004": r"a delay of 0\.004 ms is below the step .*dt_ms=0\.01\. Fix: set the delay to 0",
    "motif.delay_e_ms=0.004": "a delay of 0.004 ms is below the step",
    "motif.kind=IE": r"motif\.kind='IE' is not known\. Fix: set it to one of EI, II, EE, links",
    "motif.neurons=3": "does not split into two populations. Fix: set it to 4",
    "motif.link_from=0": "motif.link_from is given, but EI has its own links. Fix: ",
    "motif.dellay_ms=3": r"unknown setting motif\.dellay_ms .*Fix: did you mean motif\.delay_ms\?",
    "noise.D=3": r"unknown setting noise\.D .*Fix: did you mean noise\.D_uA2_ms_cm4\?",
    "noise.D_uA2_ms_cm4=-1": "is below 0. Fix: ",
    "noise.law=cauchy": "is not known. Fix: set it to one of gaussian, triangular",
    "synapse.set=quick": "synapse.set='quick' is not known. Fix: set it to one of fast, slow, ftm",
    "synapse.K_mV=0": "is not above 0. Fix: ",
    "simulation.dt_ms=0": "is not above 0. Fix: ",
    "simulation.seed=-1": "is below 0. Fix: ",
    "simulation.replicas=1.5": "is not a whole number. Fix: ",
    "simulation.duration_ms=1e12": "Fix: lower simulation.duration_ms",
    "simulation.start_V_mV=-65,-60,-55": "holds 3 values for 2 neurons. Fix: ",
    "motif": r"is not a setting\. Fix: write key=value",
    "=3": r"is not a setting\. Fix: write key=value",
}


@pytest.mark.parametrize("override", BAD)
def test_a_wrong_setting_is_one_line_with_the_fix(override: str) -> None:
    with pytest.raises(ConfigError, match=BAD[override]) as caught:
        load_recipe("ei", [override])
    assert "\n" not in str(caught.value) and "Fix: " in str(caught.value)


def test_a_delay_that_no_link_has_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"motif\.delay_e_ms=4 belongs to no link of II\. Fix: set it to 0"):
        load_recipe("ii", ["motif.delay_e_ms=4"])


LINKS = {
    "sign": ({"link_sign": (1,)}, "motif.link_sign holds 1 values for 2 links"),
    "target": ({"link_to": (1, 2)}, "a link names neuron 2, but .*=2. Fix: set motif.neurons to 3"),
    "delay": ({"link_delay_ms": (1.0,)}, "motif.link_delay_ms holds 1 values for 2 links"),
    "no sign": ({"link_sign": (1, 0)}, "motif.link_sign holds 0. Fix: "),
}


@pytest.mark.parametrize("case", LINKS)
def test_links_must_fit_together(case: str) -> None:
    right = Motif(kind="links", link_from=(0, 1), link_to=(1, 0), link_sign=(1, -1))
    wrong, message = LINKS[case]
    with pytest.raises(ConfigError, match=message):
        replace(right, **wrong)


def test_a_neuron_with_links_of_both_signs_needs_one_speed() -> None:
    both = Motif(kind="links", neurons=3, link_from=(0, 0), link_to=(1, 2), link_sign=(1, -1))
    assert Recipe(motif=both).motif == both    # the fast set has one speed
    with pytest.raises(ConfigError, match="neuron 0 both excites and inhibits.*Fix: "):
        Recipe(motif=both, synapse=Synapse(**SYNAPSES["slow"]))


def test_a_matrix_becomes_links() -> None:
    motif = motif_of([[0, 2.0], [-3.0, 0]], [[0, 9.0], [4.0, 0]])
    assert (motif.link_from, motif.link_to, motif.link_sign) == ((0, 1), (1, 0), (1, -1))
    assert (motif.link_delay_ms, motif.link_g_mS_cm2) == ((9.0, 4.0), (2.0, 3.0))


def test_the_last_one_to_name_a_setting_wins(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[synapse]\nset = "slow"\nexc_rise_per_ms = 3\n[motif]\ndelay_ms = 4\n')
    recipe = load_recipe(str(file), ["motif.delay_ms=5", "synapse.inh_decay_per_ms=.5"])
    its = recipe.synapse
    assert (its.exc_decay_per_ms, its.exc_rise_per_ms, its.inh_decay_per_ms) == (0.19, 3.0, 0.5)
    assert recipe.motif.delay_ms == 5.0


@pytest.mark.parametrize("name", RECIPES)
def test_a_packaged_recipe_says_what_it_is_and_survives_being_written(name: str) -> None:
    assert recipe_text(name).startswith("# ")
    recipe = load_recipe(name)
    written = tomllib.loads(to_toml(recipe))
    assert {f"{table}.{key}" for table, keys in written.items() for key in keys} == set(leaves())
    assert Recipe(**{table: SECTIONS[table](**keys) for table, keys in written.items()}) == recipe


FILES = {
    "text": ("[noise\n", "is not TOML: .*Fix: correct that line"),
    "table": ("[nose]\nD = 1\n", r"unknown table \[nose\] in .*Fix: use "),
    "flat": ("noise = 3\n", r"noise=3 in .* is not a table. Fix: "),
    "deep": ("a = " + "[" * 9999, "cannot be read: it nests too deeply. Fix: "),
}


@pytest.mark.parametrize("case", FILES)
def test_a_wrong_file_is_one_line_with_the_fix(case: str, tmp_path: Path) -> None:
    text, message = FILES[case]
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(str(tmp_path / "wrong.toml"))


def test_a_missing_recipe_names_those_that_ship(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no recipe .*Fix: give the path of a .toml file, or .*ei-ftm"):
        load_recipe(str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match=r"cannot read .*Fix: "):
        load_recipe(str(tmp_path))


def test_the_command_line_reads_toml_and_what_shells_leave_of_it() -> None:
    given = ["noise.law=triangular", "simulation.start_V_mV=-65,-60", "motif.neurons = 2.0"]
    recipe = load_recipe("ii", given)
    assert recipe.noise.law == load_recipe("ii", ['noise.law="triangular"']).noise.law == "triangular"
    assert recipe.simulation.start_V_mV == (-65.0, -60.0)
