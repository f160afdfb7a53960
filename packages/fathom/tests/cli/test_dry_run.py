"""`--dry-run` says what a run takes, starts nothing, and needs no torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from typer.testing import CliRunner

from fathom.cli import dry_run
from fathom.cli.train import train
from fathom.config.counts import count, flops_per_token
from fathom.config.errors import ConfigError
from fathom.config.load import load_recipe

GIB = 2**30


class Said(NamedTuple):
    """What a command printed."""

    out: str
    err: str

    @property
    def figures(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        assert self.out.count("\n") == 1
        found: dict[str, Any] = json.loads(self.out)
        return found


def say(*words: str) -> Said:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(train)
    result = CliRunner().invoke(app, [*words, "--dry-run"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return Said(result.stdout, result.stderr)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, on a machine without a GPU and with 64 GiB."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dry_run, "room", lambda _: dry_run.Room("cpu", 64 * GIB))
    return tmp_path


@pytest.mark.parametrize("recipe", ["tiny", "small", "demo", "v3"])
def test_nothing_is_started(here: Path, recipe: str) -> None:
    say(recipe, "--out", "runs/x")
    say(recipe, "--out", "runs/x", "--json")
    assert list(here.iterdir()) == []


def test_torch_is_not_needed(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["torch"] = sys.modules["numpy"] = None
from fathom.cli.main import main
sys.exit(main(["train", "small", "--out", "x", "--dry-run", "--json"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parameters"]["total"] == 107_080_928


def test_the_figures_agree_with_the_counts(here: Path) -> None:
    found = say("small", "train.tokens=655360", "--out", "x", "--json").figures
    recipe = load_recipe("small").recipe
    counts = count(recipe.model)
    assert found["parameters"] == {"total": counts.total, "active": counts.active, "mtp": counts.mtp}
    assert found["run"] == {
        "first_tokens": 65536, "full_tokens": 65536, "steps": 10, "tokens": 655360, "minutes": None,
    }  # fmt: skip
    per_token = flops_per_token(recipe.model, 1024)
    assert found["flops"] == {"token": per_token, "step": per_token * 65536, "run": per_token * 655360}
    assert found["memory_needed"] == sum(found["memory"].values())
    assert found["memory"].keys() == found["formulas"].keys()


def test_every_share_is_on_the_page_and_they_add_up(here: Path) -> None:
    lines = say("tiny", "--out", "x").out.splitlines()
    assert lines[0] == "fathom train tiny: a dry run, nothing is started"
    found = say("tiny", "--out", "x", "--json").figures
    for name in found["memory"]:
        assert sum(f" {name}: " in line for line in lines) == 1
    assert any(line.startswith("run ") and "307K tokens in 300 steps" in line for line in lines)


def test_settings_change_what_it_takes(here: Path) -> None:
    def shares(*settings: str) -> dict[str, int]:
        found: dict[str, int] = say("tiny", *settings, "--out", "x", "--json").figures["memory"]
        return found

    plain = shares("train.precision=fp32")
    assert "moving average" not in plain
    assert shares("train.optim.ema=0.99")["moving average"] == plain["fp32 masters"]
    assert shares("train.precision=bf16")["activations"] < plain["activations"]
    assert shares("train.micro_batch=1")["activations"] * 8 == plain["activations"]
    assert shares("train.recompute=true")["activations"] < plain["activations"] / 2
    assert shares("train.micro_batch=1")["fp32 masters"] == plain["fp32 masters"]


def test_minutes_have_no_steps(here: Path) -> None:
    said = say("demo", "--out", "x")
    assert "4.2 minutes; how many steps that is depends on the machine" in said.out
    found = say("demo", "--out", "x", "--json").figures
    assert (found["run"]["steps"], found["flops"]["run"], found["run"]["minutes"]) == (None, None, 4.2)


def test_what_does_not_fit_is_a_warning(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert say("tiny", "--out", "x").err == ""
    huge = say("v3", "--out", "x")
    memory, disk = huge.err.splitlines()
    assert memory == (
        "fathom: warning: the run needs about 10.6 TiB of memory, here are 64.0 GiB. Fix: a smaller model"
    )
    assert "of disk" in disk and disk.endswith("Fix: lower train.save.keep, or give --out on another disk")
    monkeypatch.setattr(dry_run, "room", lambda _: dry_run.Room("cpu", 2 * GIB))
    wide = say("small", "train.micro_batch=64", "--out", "x")
    assert "Fix: set train.micro_batch=1 or train.recompute=true" in wide.err
    found = say("small", "train.micro_batch=64", "--out", "x", "--json")
    assert [f"fathom: warning: {w}" for w in found.figures["warnings"]] == found.err.splitlines()


def test_a_gpu_and_its_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dry_run, "run", lambda _: "81559\n81559\n")
    assert dry_run.room("auto") == ("cuda", 81559 * 2**20)
    assert dry_run.room("cpu").device == "cpu"
    found = say("small", "--out", str(tmp_path / "x"), "--json").figures
    assert (found["device"], found["precision"]) == ("cuda", "bf16")
    monkeypatch.setattr(dry_run, "run", lambda _: None)
    assert dry_run.room("auto").device == "cpu"
    assert dry_run.room("cuda") == ("cuda", None)


def test_a_container_may_have_less_than_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dry_run, "MEMORY_LIMIT", tmp_path / "max")
    whole = dry_run.room("cpu").bytes
    assert whole is not None and whole > GIB // 4
    for text, most in (("max\n", whole), ("1048576\n", 2**20), (str(2**62), whole), ("", whole)):
        (tmp_path / "max").write_text(text, encoding="ascii")
        assert dry_run.room("cpu").bytes == most


def test_the_disk_is_that_of_the_folder_to_come(tmp_path: Path) -> None:
    free = dry_run.free_disk(tmp_path / "not" / "yet")
    assert free is not None and abs(free - shutil.disk_usage(tmp_path).free) < GIB


@pytest.mark.parametrize(
    "words, said",
    [
        (["tiny", "train.steps=0"], r"^the run has no budget.* Fix: "),
        (["tiny", "train.lr=-1"], r"^train\.lr=-1.* Fix: "),
        (["nope"], r"^no recipe nope.* Fix: "),
        (["tiny", "--resume", "yes"], r"^--resume yes is not known\. Fix: "),
    ],
)
def test_what_is_wrong_is_said_in_one_line(here: Path, words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        say(*words, "--out", "x")


def test_json_alone_is_refused(here: Path) -> None:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(train)
    with pytest.raises(ConfigError, match=r"--json belongs to --dry-run\. Fix: "):
        CliRunner().invoke(app, ["tiny", "--out", "x", "--json"], catch_exceptions=False)
    assert list(here.iterdir()) == []


def test_fine_tuning_is_reckoned_for_the_network_it_starts_from(here: Path) -> None:
    from fathom.checkpoint.save import save_model
    from fathom.cli.sft import sft
    from fathom.model.transformer import Transformer

    recipe = load_recipe("tiny", ["model.num_layers=2"]).recipe
    save_model(here / "base", Transformer(recipe.model, seed=0).state_dict(), recipe.model)
    app = typer.Typer(rich_markup_mode=None)
    app.command()(sft)
    words = ["sft", "--model", "base", "--out", "x", "--dry-run", "--json"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    found = json.loads(result.stdout)
    assert found["parameters"]["total"] == count(recipe.model).total
    assert count(recipe.model) != count(load_recipe("sft").recipe.model)
    assert found["run"]["steps"] == 500
    assert [path.name for path in here.iterdir()] == ["base"]
