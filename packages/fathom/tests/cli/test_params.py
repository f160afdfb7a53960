"""`fathom params` counts what the model really has."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from fathom.cli.params import params
from fathom.config.counts import count
from fathom.config.errors import ConfigError
from fathom.config.presets import PRESETS, load_preset


def run(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(params)
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_four_figures_on_one_line() -> None:
    text = run("v3", "--json")
    assert text.count("\n") == 1
    assert json.loads(text) == {
        "total": 671_026_419_200,
        "active": 36_625_618_432,
        "mtp": 11_610_068_224,
        "cache_elements_per_token": 35_136,
    }


@pytest.mark.parametrize("name", PRESETS)
def test_the_table_adds_up(name: str) -> None:
    text, counts = run(name), count(load_preset(name))
    for figure in (counts.total, counts.active, counts.cache_elements_per_token):
        assert f"{figure:,}" in text
    rows = [line.split("│")[1:4] for line in text.splitlines() if line.startswith("│")]
    sizes = {part.strip(): int(total.strip().replace(",", "")) for part, total, _ in rows[: len(rows)]}
    upto = [part.strip() for part, _, _ in rows].index("model")
    assert sum(int(total.strip().replace(",", "")) for _, total, _ in rows[:upto]) == sizes["model"]


def test_a_recipe_is_counted_too() -> None:
    assert json.loads(run("demo", "--json")) == count(load_preset("tiny"))._asdict()
    with pytest.raises(ConfigError, match=r"no recipe v4\. Fix: "):
        run("v4", "--json")


@pytest.mark.parametrize("name", PRESETS)
def test_the_model_has_as_many(name: str) -> None:
    """Built without storage (671B included), the network holds exactly what was counted."""
    import torch

    from fathom.model.transformer import Transformer

    config = load_preset(name)
    with torch.device("meta"):
        model = Transformer(config, seed=None)
    sizes = {n: t.numel() for n, t in model.state_dict().items()}
    if config.moe.score == "softmax":  # V2 has no routing bias; here it is a buffer of zeros
        sizes = {n: size for n, size in sizes.items() if not n.endswith("router.bias")}
    mtp = sum(size for n, size in sizes.items() if n.startswith("mtp."))
    assert (sum(sizes.values()) - mtp, mtp) == (count(config).total, count(config).mtp)
