"""Recipes, presets and overrides: who wins, what is remembered of it, and what a wrong word is answered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fathom.config.errors import ConfigError
from fathom.config.load import RECIPES, load_recipe, recipe_text
from fathom.config.presets import load_preset


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def _write(text: str, name: str = "mine.toml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return _write


def test_the_last_to_name_a_setting_wins(write: Any) -> None:
    path = write('[model]\npreset = "tiny"\nmoe.num_experts = 12\n[train]\nseq_len = 64\nlr = 1e-2\n')
    loaded = load_recipe(path, ["train.lr=3e-4", "train.lr=2e-4"])
    model, train = loaded.recipe.model, loaded.recipe.train
    assert (model.hidden_size, model.moe.num_experts, train.seq_len, train.lr) == (192, 12, 64, 2e-4)
    wanted = {
        "model.hidden_size": "preset tiny",
        "model.moe.num_experts": path,
        "train.seq_len": path,
        "train.lr": "command line",
        "train.optim.beta1": "default",
    }
    assert {name: loaded.origin[name] for name in wanted} == wanted


def test_a_preset_on_the_command_line_replaces_the_recipes(write: Any) -> None:
    path = write('model.preset = "tiny"\nmodel.name = "mine"\ntrain.seq_len = 64\n')
    loaded = load_recipe(path, ["model.preset=small"])
    assert loaded.recipe.model.hidden_size == load_preset("small").hidden_size
    assert loaded.recipe.model.name == "mine", "what the recipe itself says of the model stays"
    assert loaded.origin["model.hidden_size"] == "preset small"


@pytest.mark.parametrize("budget", ["train.steps=5", "train.tokens=1e3", "train.minutes=0.5"])
def test_a_budget_replaces_the_one_below(write: Any, budget: str) -> None:
    for below in ("steps = 300", "tokens = 7", "minutes = 6.0"):
        loaded = load_recipe(write(f"model.preset = 'tiny'\n[train]\nseq_len = 64\n{below}\n"), [budget])
        train, (name, _, value) = loaded.recipe.train, budget.partition("=")
        given = {"train.steps": train.steps, "train.tokens": train.tokens, "train.minutes": train.minutes}
        assert given == dict.fromkeys(given, 0) | {name: float(value)}
        assert {loaded.origin[other] for other in given if other != name} == {"default"}


def test_two_budgets_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.steps=5 and train\.minutes=1\.0 are too many"):
        load_recipe("demo", ["train.steps=5", "train.minutes=1"])


@pytest.mark.parametrize("path", [*RECIPES, "empty"])
def test_a_file_and_a_packaged_recipe_read_alike(write: Any, path: str) -> None:
    text = "" if path == "empty" else recipe_text(path)
    mine = load_recipe(write("\ufeff" + text)).recipe  # with the mark that some editors put in front
    if path != "empty":
        assert mine == load_recipe(path).recipe


def test_a_file_may_be_named_like_a_packaged_recipe(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("model.preset = 'tiny'\ntrain.seq_len = 32\ntrain.steps = 1\n", "demo")
    monkeypatch.chdir(Path(path).parent)
    assert load_recipe("./demo").recipe.train.seq_len == 32
    assert load_recipe("demo").origin["train.seq_len"] == "recipe demo"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[train]\nlr = \n", r"mine\.toml is not TOML: .*line 2.*Fix: "),
        ("[train]\nlr = 1e-3\nlr = 1e-4\n", r"mine\.toml is not TOML: .*line 3.*Fix: "),
        ("[train]\nlrr = 1\n", r"unknown setting train\.lrr in .*mine\.toml\. Fix: did you mean train\.lr\?"),
        (
            "[trian]\nlr = 1\n",
            r"unknown setting trian in .*\. Fix: .*the tables are model, data, train, parallel$",
        ),
        ("lr = 1\n", r"unknown setting lr in .*\. Fix: did you mean train\.lr\?"),
        (
            "[train.optim]\nbeta3 = 1\n",
            r"did you mean train\.optim\.beta\d\? \[train\.optim\] holds beta1, beta2, eps",
        ),
        ("[model]\npresets = 'tiny'\n", r"did you mean model\.preset\? \[model\] holds name, .*, preset$"),
        ("[model]\nmoe = 3\n", r"model\.moe=3 in .*mine\.toml is not a table\. Fix: write \[model\.moe\]"),
        ("train = []\n", r"train=\[\] in .* is not a table\. Fix: "),
        ("[[train]]\nlr = 1\n", r"train=\[\{'lr': 1\}\] in .* is not a table\. Fix: "),
        ("model.preset = 3\n", r"model\.preset=3 is not known\. Fix: use one of v3, "),
        (
            "model.preset = 'tinny'\n",
            r"model\.preset='tinny' is not known\. Fix: use tiny, the nearest; known are v3",
        ),
        ("[train]\nseq_len = 2.5\n", r"train\.seq_len=2\.5 is not a whole number\. Fix: "),
        (
            "[data]\nsources = 'a.txt'\n",
            r"data\.sources='a\.txt' is not a list of texts\. Fix: .*\[\"a\.txt\"\]",
        ),
        ("[data]\nseed = {}\n", r"data\.seed=\{\} is not a whole number\. Fix: "),
    ],
)
def test_a_wrong_recipe_is_answered_with_the_fix(write: Any, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_recipe(write(text))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("dmeo", r"no recipe dmeo\. Fix: .*use demo, the nearest; known are demo, fp8, own-text, "),
        ("recipes/small.toml", r"no recipe recipes/small\.toml\. Fix: .*use small"),
        (".", r"cannot read \. \(.*\)\. Fix: "),
        ("nul\0", r"cannot read 'nul\\x00' \(.*\)\. Fix: "),
    ],
)
def test_a_missing_recipe_is_answered_with_the_known_ones(path: str, says: str, tmp_path: Path) -> None:
    here = Path.cwd()
    try:
        os.chdir(tmp_path)
        with pytest.raises(ConfigError, match=says):
            load_recipe(path)
    finally:
        os.chdir(here)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text\. Fix: "):
        load_recipe(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("argument", "name", "value"),
    [
        ("train.steps=300", "steps", 300),
        ("train.steps=1_000", "steps", 1000),
        ("train.steps=1e6", "steps", 1_000_000),
        (" train.steps = 12 ", "steps", 12),
        ("train.tokens=14.8e12", "tokens", 14_800_000_000_000),
        ("train.lr=3e-4", "lr", 3e-4),
        ("train.lr=.5", "lr", 0.5),
        ("train.lr=1", "lr", 1.0),
        ("train.recompute=true", "recompute", True),
        ("train.device=cpu", "device", "cpu"),
        ("train.device='cpu'", "device", "cpu"),
    ],
)
def test_values_on_the_command_line(argument: str, name: str, value: Any) -> None:
    got = getattr(load_recipe("demo", [argument]).recipe.train, name)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("value", "sources"),
    [
        ("a.txt", ("a.txt",)),
        ("a.txt,b c.txt", ("a.txt", "b c.txt")),
        ('["a.txt"]', ("a.txt",)),
        ('["a,b.txt", "c"]', ("a,b.txt", "c")),
        ("[a.txt, b.txt]", ("a.txt", "b.txt")),
        ('"a,b.txt"', ("a,b.txt",)),
        ("dir/*.txt,smallworld", ("dir/*.txt", "smallworld")),
        ("2026-11-22", ("2026-11-22",)),
        ("7", ("7",)),
    ],
)
def test_lists_on_the_command_line(value: str, sources: tuple[str, ...]) -> None:
    assert load_recipe("demo", [f"data.sources={value}", "data.weights=[]"]).recipe.data.sources == sources


@pytest.mark.parametrize("value", ["0.9,0.1", "[0.9, 0.1]", " .9 , .1 "])
def test_lists_of_numbers_on_the_command_line(value: str) -> None:
    assert load_recipe("demo", [f"data.weights={value}"]).recipe.data.weights == (0.9, 0.1)


@pytest.mark.parametrize(
    "text", ["123", "true", "1979-05-27", "my folder", "C:\\new", "a=b", "[x]", "a#b", "{}"]
)
def test_text_on_the_command_line_is_taken_as_it_stands(text: str) -> None:
    assert load_recipe("demo", [f"data.corpus={text}"]).recipe.data.corpus == text


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("train.lr", r"'train\.lr' on the command line is not a setting\. Fix: write key=value"),
        ("=3", r"'=3' on the command line is not a setting\. Fix: "),
        ("train.lrr=3", r"unknown setting train\.lrr on the command line\. Fix: did you mean train\.lr\?"),
        ("lr=3", r"did you mean train\.lr\?"),
        ("x.lr=3", r"did you mean train\.lr\?"),
        ("--train.lr=3", r"did you mean train\.lr\?"),
        ("moe.num_experts=3", r"did you mean model\.moe\.num_experts\?"),
        ("model.moe.experts=3", r"\[model\.moe\] holds num_experts, num_shared, experts_per_token, "),
        ("train.lr.max=3", r"unknown setting train\.lr\.max .* \[train\] holds steps, "),
        ("zzz=1", r"unknown setting zzz .* Fix: use what .*; the tables are model, data, train, parallel$"),
        ("train=3", r"train on the command line is a table of settings\. Fix: .*train\.steps="),
        ("train.steps=many", r"train\.steps='many' is not a whole number\. Fix: "),
        ("train.steps=2.5", r"train\.steps=2\.5 is not a whole number\. Fix: "),
        ("train.steps=1e300", r"train\.steps=1e\+300 is not a whole number\. Fix: "),
        ("train.steps=1\ntrain.seed=2", r"train\.steps='1\\ntrain\.seed=2' is not a whole number\. Fix: "),
        ("train.recompute=yes", r"train\.recompute='yes' is not true or false\. Fix: "),
        ("train.device=gpu", r"train\.device='gpu' is not known\. Fix: set it to one of auto, cpu, cuda$"),
        ("train.device=", r"train\.device='' is not known\. Fix: "),
        ('data.corpus="a', r'data\.corpus="a has no closing quote\. Fix: '),
        ("data.weights=1,-2", r"data\.weights=.* holds -2\.0, which is not above 0\. Fix: "),
        ("data.sources=", r"data\.sources=\(\) names no source\. Fix: "),
    ],
)
def test_a_wrong_override_is_answered_with_the_fix(argument: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_recipe("demo", [argument])
