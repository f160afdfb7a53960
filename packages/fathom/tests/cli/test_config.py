"""`fathom config`: what is printed is true, and can be used again."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fathom.cli.config import app
from fathom.config.counts import count
from fathom.config.dump import to_dict, to_flat
from fathom.config.errors import ConfigError
from fathom.config.load import RECIPES, load_recipe, recipe_text
from fathom.config.presets import PRESETS, load_preset


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_show_prints_a_recipe_that_loads_back(tmp_path: Path) -> None:
    wanted = load_recipe("demo", ["train.lr=1e-3"]).recipe
    for flags in ([], ["-v"]):
        text = run("show", "demo", "train.lr=1e-3", *flags)
        assert tomllib.loads(text) == to_dict(wanted)
    (tmp_path / "shown.toml").write_text(text, encoding="utf-8")
    assert load_recipe(str(tmp_path / "shown.toml")).recipe == wanted


def test_show_says_where_each_value_came_from() -> None:
    lines = [line.split() for line in run("show", "demo", "train.lr=1e-3").splitlines()]
    assert ["lr", "=", "0.001", "#", "command", "line"] in lines
    assert ["hidden_size", "=", "192", "#", "preset", "tiny"] in lines
    assert ["seq_len", "=", "192", "#", "recipe", "demo"] in lines
    assert ["beta1", "=", "0.9", "#", "default"] in lines
    assert "largest learning rate" in run("show", "demo", "-v")


def test_show_as_json_holds_every_setting() -> None:
    loaded = load_recipe("small")
    shown = json.loads(run("show", "small", "--json"))
    assert {name: row["value"] for name, row in shown.items()} == to_flat(loaded.recipe)
    assert {name: row["from"] for name, row in shown.items()} == loaded.origin
    assert all(row["help"] for row in shown.values())


def test_presets_and_recipes_are_listed() -> None:
    listed = json.loads(run("presets", "--json"))
    assert listed == {name: count(load_preset(name))._asdict() for name in PRESETS}
    assert "671,026,419,200" in run("presets")
    assert list(json.loads(run("recipes", "--json"))) == list(RECIPES)
    assert len(run("recipes").splitlines()) == len(RECIPES)


def test_copy_writes_the_recipe_once(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    assert run("copy", "own-text", str(mine)).strip() == str(mine)
    assert mine.read_text(encoding="utf-8") == recipe_text("own-text")
    mine.write_text("edited", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"exists already\. Fix: "):
        run("copy", "own-text", str(mine))
    assert mine.read_text(encoding="utf-8") == "edited"
    with pytest.raises(ConfigError, match=r"cannot write .*\. Fix: "):
        run("copy", "own-text", str(tmp_path / "no" / "folder.toml"))
    with pytest.raises(ConfigError, match=r"no recipe own-txt .*Fix: use own-text, the nearest"):
        run("copy", "own-txt", str(tmp_path / "other.toml"))


@pytest.mark.parametrize(
    "arguments", [["show", "dmeo"], ["show", "demo", "train.lrr=1"], ["show", "demo", "lr"]]
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]+ Fix: [^\n]+$"):
        run(*arguments)
