"""The presets and recipes that ship: all there, all loadable, and of the published sizes."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.config.counts import Counts, count, flops_per_token, mha_cache_elements, mtp_parts, trunk_parts
from fathom.config.errors import ConfigError
from fathom.config.load import RECIPES, load_recipe, recipe_text
from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig
from fathom.config.presets import PRESETS, load_preset


def shipped(folder: str) -> list[str]:
    return sorted(p.name.removesuffix(".toml") for p in files("fathom.config").joinpath(folder).iterdir())


def test_every_file_is_listed_and_every_name_has_a_file() -> None:
    assert sorted(PRESETS) == shipped("presets")
    assert sorted(RECIPES) == shipped("recipes")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_states_its_whole_shape(name: str) -> None:
    raw = tomllib.loads(files("fathom.config").joinpath("presets", f"{name}.toml").read_text("utf-8"))
    model = load_preset(name)
    assert model.name == name
    assert set(raw) == set(ModelConfig.__dataclass_fields__), "a default must not decide a tensor's shape"
    assert set(raw["attention"]) == set(AttentionConfig.__dataclass_fields__)
    assert set(raw["moe"]) == set(MoEConfig.__dataclass_fields__)


@pytest.mark.parametrize("name", ["v4", "", "V3", "v3.toml", "../v3", "\0"])
def test_an_unknown_preset_names_the_known(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"model\.preset=.* is not known\. Fix: use .*v3, v2-lite, moonlight, small, tiny"
    ):
        load_preset(name)


def test_published_sizes() -> None:
    """671B and 37B of the report, 11.5B unique in MTP as README_WEIGHTS says, 576 x 61 cached numbers."""
    assert count(load_preset("v3")) == Counts(671_026_419_200, 36_625_618_432, 11_610_068_224, 35_136)
    lite, moonlight = count(load_preset("v2-lite")), count(load_preset("moonlight"))
    assert (lite.total, lite.active, lite.mtp) == (15_706_484_224, 2_451_435_008, 0)
    assert (moonlight.total, moonlight.mtp) == (15_960_110_208, 0)
    assert round(count(load_preset("small")).total / 1e6) == 107


def test_parts_of_v3() -> None:
    """Each kind of parameter from its shapes, 58 layers with experts and 3 without."""
    trunk = {part.name: part.total for part in trunk_parts(load_preset("v3"))}
    assert trunk["embedding"] == trunk["head"] == 926_679_040
    assert trunk["attention"] + trunk["block norms"] == 61 * (187_107_328 + 14_336)
    assert trunk["dense feed-forward"] == 3 * 396_361_728
    assert trunk["routed experts"] == 653_908_770_816
    assert trunk["shared experts"] == 2_554_331_136
    assert trunk["routers"] + trunk["routing bias"] == 58 * 1_835_264
    mtp = sum(part.active for part in mtp_parts(load_preset("v3")))
    assert mtp + trunk["embedding"] + trunk["head"] == 2_541_458_688, (
        "README_WEIGHTS: 2.4B active with both tables"
    )


def test_cache_against_plain_attention() -> None:
    v3 = load_preset("v3")
    assert mha_cache_elements(v3) == 1_998_848  # 2 x 128 heads x 128 x 61
    assert round(mha_cache_elements(v3) / count(v3).cache_elements_per_token, 1) == 56.9


def test_arithmetic_by_hand() -> None:
    """One dense layer of width 1: every product counted on fingers."""
    thin = AttentionConfig(num_heads=1, q_rank=0, kv_rank=1, nope_head=1, rope_head=2, value_head=1)
    model = ModelConfig(
        vocab_size=10,
        hidden_size=1,
        num_layers=1,
        dense_layers=1,
        dense_size=7,
        attention=thin,
        mtp=MTPConfig(depth=0),
    )
    matrices = 3 + (3 + 2 + 1) + 3 * 7 + 10  # query; kv_a, kv_b, out; SwiGLU; head
    keys = (5 + 1) / 2  # a mean position of 5 sees 3
    assert flops_per_token(model, 5) == 6 * matrices + 3 * 2 * keys * (3 + 1)


def test_mtp_costs_a_block_a_projection_and_a_head() -> None:
    v3 = load_preset("v3")
    trunk, more = (flops_per_token(replace(v3, mtp=MTPConfig(depth=d)), 4096) for d in (0, 1))
    a, D = v3.attention, v3.hidden_size
    block = 6 * sum(p.active for p in mtp_parts(v3) if p.multiplies)
    attention = 3 * a.num_heads * (a.qk_head + a.value_head) * 4097
    assert more - trunk == block + attention + 6 * D * v3.vocab_size


SIZES = st.integers(1, 2**40)


@settings(deadline=None, derandomize=True, database=None, max_examples=100)
@given(st.tuples(*[SIZES] * 8), st.booleans())
def test_counts_are_exact_at_any_size(sizes: tuple[int, ...], compressed: bool) -> None:
    """Whole numbers throughout: doubling the experts adds exactly their parameters, also beyond 2**53."""
    D, F, E, L, H, C, V, Q = sizes
    attention = AttentionConfig(num_heads=H, kv_rank=C, q_rank=Q if compressed else 0)
    moe = MoEConfig(num_experts=E, num_groups=1, groups_per_token=1, experts_per_token=1, expert_size=F)
    model = ModelConfig(
        hidden_size=D, num_layers=L, dense_layers=0, vocab_size=V + 1, attention=attention, moe=moe
    )
    twice = count(replace(model, moe=replace(moe, num_experts=2 * E)))
    one = count(model)
    assert twice.total - one.total == L * E * (3 * D * F + D + 1)
    assert twice.active - one.active == L * E * (D + 1), "every token meets the whole router"
    assert one.cache_elements_per_token == twice.cache_elements_per_token == L * (C + 64)
    assert all(type(x) is int for x in (*one, flops_per_token(model, 4096)))


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_can_run(name: str) -> None:
    recipe = load_recipe(name).recipe
    train = recipe.train
    assert sum(bool(b) for b in (train.steps, train.tokens, train.minutes)) == 1, "exactly one budget"
    assert recipe.data.vocab_size <= recipe.model.vocab_size
    about = recipe_text(name).partition("\n")[0]
    assert about.startswith("# ") and about.endswith("."), "`fathom config recipes` shows its first line"


def test_the_v3_recipe_is_the_reports_run() -> None:
    recipe = load_recipe("v3").recipe
    train, rows = recipe.train, recipe.train.batch_size
    assert (train.tokens, train.seq_len, rows, train.lr) == (14_800_000_000_000, 4096, 15360, 2.2e-4)
    assert rows * train.schedule.batch_start == 3072
    assert (recipe.model.rope.factor, recipe.model.init_std, recipe.data.fim_rate) == (1.0, 0.006, 0.1)
    assert count(recipe.model) == count(load_preset("v3"))


def test_the_demo_reads_what_every_machine_has() -> None:
    for name in ("demo", "tiny"):
        assert set(load_recipe(name).recipe.data.sources) <= {"smallworld", "pydocs"}
