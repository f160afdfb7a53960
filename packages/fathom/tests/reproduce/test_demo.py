"""The demo tells its whole story, ends with its figures, and goes on where it was stopped."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from fathom.cli.main import main
from fathom.reproduce import demo

KEYS = {
    "minutes", "seconds", "tokens_seen", "steps", "bits_per_byte_before", "bits_per_byte_after",
    "max_violation", "parameters_total", "parameters_active", "cache_bytes_per_token",
    "mha_cache_bytes_per_token", "questions", "right", "share_right", "mtp_acceptance",
    "tokens_per_trunk_pass", "model", "report",
}  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    """The demo's own recipes with fewer documents and questions, one process and fixed steps."""
    own = demo.recipes

    def recipes(minutes: float, seed: int):
        return tuple(replace(loaded, recipe=shortened(loaded.recipe)) for loaded in own(minutes, seed))

    def shortened(recipe):
        source = {"sources": ("smallworld",), "weights": (), "documents": 300, "held_out": 0.05, "workers": 1}
        train = replace(recipe.train, minutes=0.0, steps=4, precision="fp32")
        return replace(recipe, data=replace(recipe.data, **source), train=train)

    monkeypatch.setattr(demo, "recipes", recipes)
    monkeypatch.setattr(demo, "QUESTIONS", 7)


def test_the_last_line_is_the_closing_figures_and_a_second_call_goes_on(
    small, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "120")
    command = ["demo", "--minutes", "0.1", "--out", str(tmp_path / "demo"), "--json", "--no-talk"]
    assert main(command) == 0
    said = capsys.readouterr()
    figures = json.loads(said.out.splitlines()[-1])
    assert set(figures) == KEYS
    assert figures["steps"] == 8 and figures["questions"] == 7
    assert figures["bits_per_byte_after"] < figures["bits_per_byte_before"]
    assert math.isfinite(figures["max_violation"])
    assert (figures["parameters_total"], figures["cache_bytes_per_token"]) == (3_140_376, 512)
    assert 0 <= figures["mtp_acceptance"] <= 1 and 0 < figures["tokens_per_trunk_pass"] <= 2
    share, tokens = figures["mtp_acceptance"], figures["tokens_per_trunk_pass"]
    shown = f"{share:.0%} accepted while answering: {tokens:.2f} tokens per trunk pass"
    assert f"MTP drafts              {shown}" in said.err
    assert said.err.count("->") == 5, "five questions in full"
    assert json.loads((tmp_path / "demo" / "figures.json").read_text()) == figures
    assert main(command) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {**again, "seconds": 0} == {**figures, "seconds": 0}, "nothing is trained twice"
    _, stats = demo.ask_held_out(tmp_path / "demo" / "sft", torch.device("cpu"), quiet=True)
    assert stats.drafted > 0, "the share of accepted drafts is of drafts that were made"
    assert (stats.acceptance, stats.tokens_per_pass) == (
        figures["mtp_acceptance"], figures["tokens_per_trunk_pass"]
    )  # fmt: skip


def test_at_a_terminal_the_chat_opens(small, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("fathom.cli.chat.chat", lambda model: opened.append(model))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for talk in ([], ["--no-talk"]):
        assert main(["demo", "--minutes", "0.1", "--out", str(tmp_path / "demo"), *talk]) == 0
    assert opened == [tmp_path / "demo" / "sft"]


def test_time_is_shared_out(tmp_path):
    first, second = (loaded.recipe for loaded in demo.recipes(6.0, seed=3))
    assert first.train.minutes + second.train.minutes < 6.0
    assert (first.train.steps, second.train.steps) == (0, 0)
    assert first.train.seed == first.data.seed == second.data.seed == 3


@pytest.mark.parametrize(
    "bad", [["--minutes", "0"], ["--minutes", "-1"], ["--seed", "-1"], ["--minutes", "nan"]]
)
def test_nonsense_is_one_line(bad, capsys):
    assert main(["demo", *bad]) == 2
    said = capsys.readouterr().err
    assert said.startswith("fathom: ") and "Fix: " in said and said.count("\n") == 1
