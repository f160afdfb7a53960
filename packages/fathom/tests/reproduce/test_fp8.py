"""`fathom reproduce fp8` in a tiny form: stopped in the middle it goes on, and repeats nothing."""

from __future__ import annotations

import csv
import json
import math
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from fathom.cli.main import main
from fathom.config.counts import count
from fathom.config.errors import DataError
from fathom.config.load import load_recipe
from fathom.reproduce import fp8_runs
from fathom.reproduce.fp8_figures import curves_csv, differences, figures_of
from fathom.reproduce.fp8_picture import Curve, draw_picture
from fathom.reproduce.fp8_runs import CONTROL, NOISE, planned
from fathom.reproduce.records import Record, check_same_batches, is_finished, read_record

FIRST = ["mean_relative_loss_error_percent", "max_percent", "noise_floor_percent", "control_percent"]
STEPS = 24
TINY = (
    "data.sources=smallworld", "data.weights=[]", "data.documents=150", "data.held_out=0.1", "data.workers=1",
    "train.tokens=0", f"train.steps={STEPS}", "train.seq_len=48", "train.batch_size=4", "train.save.every=8",
    "model.hidden_size=32", "model.num_layers=2", "model.moe.num_experts=4", "model.max_positions=256",
)  # fmt: skip
PROGRAM = """
import sys
from fathom.cli.main import main
from fathom.reproduce import fp8_runs
if __name__ == "__main__":
    fp8_runs.QUICK = {quick!r}
    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def tiny(monkeypatch) -> None:
    """The runs of --quick with a smaller model and fewer steps."""
    monkeypatch.setattr(fp8_runs, "QUICK", TINY)


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def kinds(run: Path) -> list[str]:
    return [json.loads(line)["kind"] for line in (run / "events.jsonl").read_text().splitlines()]


def test_stopped_in_the_middle_it_goes_on_and_repeats_nothing(tiny, tmp_path, capsys):
    out, program = tmp_path / "out", tmp_path / "program.py"
    words = ["reproduce", "fp8", "--quick", "--jobs", "2", "--out", str(out), "--json"]
    program.write_text(PROGRAM.format(quick=TINY))
    going = subprocess.Popen([sys.executable, str(program), *words], stderr=subprocess.PIPE, text=True)
    try:
        begun, first = time.monotonic(), out / "fp8-0" / "metrics.jsonl"
        while not (first.exists() and first.read_text().count("\n") > 2):
            assert going.poll() is None and time.monotonic() - begun < 300, "it ended, or does not begin"
            time.sleep(0.02)
        going.send_signal(signal.SIGINT)
        _, said = going.communicate(timeout=300)
    finally:
        going.kill()
        going.communicate()
    assert going.returncode == 130, said
    assert said.endswith("fathom: stopped, and every run is saved; the same command goes on\n"), said
    assert "Traceback" not in said
    assert not (out / "figures.json").exists()
    assert kinds(out / "fp8-0")[-1] in ("stopped", "saved")

    assert main(words) == 0
    said = capsys.readouterr()
    figures = json.loads(said.out.splitlines()[-1])
    assert list(figures)[:4] == FIRST
    assert all(math.isfinite(figures[name]) and figures[name] > 0 for name in FIRST)
    assert "--quick is too short to judge the claim" in said.err.splitlines()[-1]
    assert (figures["steps"], figures["runs"], figures["diverged"], figures["quick"]) == (STEPS, 4, [], True)
    for name in planned(quick=True):
        steps = [line["step"] for line in lines(out / name) if "train/loss" in line]
        assert steps == list(range(1, STEPS + 1)), name
    stored = json.loads((out / "figures.json").read_text())
    assert {key: stored[key] for key in figures} == figures
    assert stored["each_run"][NOISE]["settings"]["train.micro_batch"] == 2
    assert stored["each_run"]["bf16-0"]["machine"]["precision"] == "bf16"
    assert stored["each_run"]["bf16-0"]["machine"]["threads"] >= 1
    ET.fromstring((out / "fp8.svg").read_text())

    before = {name: (out / name / "metrics.jsonl").stat().st_mtime_ns for name in planned(quick=True)}
    assert main(words) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {**again, "seconds": 0} == {**figures, "seconds": 0}
    assert before == {name: (out / name / "metrics.jsonl").stat().st_mtime_ns for name in before}

    assert main([word for word in words if word != "--quick"]) == 2
    said = capsys.readouterr().err
    assert "holds what `fathom reproduce fp8 --quick` makes, not `fathom reproduce fp8`. Fix: " in said
    tampered = lines(out / "fp8-0")
    tampered[3]["train/tokens"] += 1
    (out / "fp8-0" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in tampered))
    with pytest.raises(DataError, match=r"did not read the same batches\. Fix: "):
        check_same_batches(out / "fp8-0", out / "bf16-0")


def test_what_one_run_says_is_the_error_of_the_command(tiny, tmp_path, monkeypatch, capsys):
    """A setting that fails only when the run begins, in its own process."""
    monkeypatch.setattr(fp8_runs, "FP8", (*fp8_runs.FP8, "train.device=cuda"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["reproduce", "fp8", "--quick", "--jobs", "1", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "fathom: fp8-0: train.device='cuda', but torch sees no GPU. Fix: " in said
    assert "Traceback" not in said


@pytest.mark.parametrize("jobs", ["0", "-1"])
def test_nonsense_is_one_line(jobs, tmp_path, capsys):
    assert main(["reproduce", "fp8", "--jobs", jobs, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("fathom: --jobs ") and "Fix: " in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(tiny, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["reproduce", "fp8", "--quick", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "holds something else (thesis.txt). Fix: give another --out" in said and said.count("\n") == 1
    assert main(["reproduce", "fp8", "--quick", "--out", str(tmp_path / "thesis.txt")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_of_another_recipe_is_named(tiny, tmp_path, monkeypatch, capsys):
    (tmp_path / "out").mkdir()
    words = ["reproduce", "fp8", "--quick", "--out", str(tmp_path / "out")]

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("fathom.reproduce.fp8.train", interrupted)
    assert main(words) == 130
    monkeypatch.setattr(fp8_runs, "QUICK", (*TINY, "train.lr=0.5"))
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "was begun with another recipe (fp8-0: train.lr was " in said and ", is 0.5). Fix: " in said
    (tmp_path / "out" / "experiment.json").write_text("{")
    assert main(words) == 2
    assert "experiment.json is damaged. Fix: " in capsys.readouterr().err


def test_pairs_differ_in_the_precision_alone():
    plan = planned(quick=False)
    assert len(plan) == 8
    own = {
        name: {key: load for key, load in loaded.origin.items() if load == "command line"}
        for name, loaded in plan.items()
    }
    for seed in (0, 1, 2):
        assert set(own[f"fp8-{seed}"]) == set(own[f"bf16-{seed}"]) == {"train.precision", "train.seed"}
        assert plan[f"fp8-{seed}"].recipe.train.seed == plan[f"bf16-{seed}"].recipe.train.seed == seed
    assert set(own[CONTROL]) == {"train.precision", "train.seed", "train.fp8.gradients"}
    assert set(own[NOISE]) == {"train.precision", "train.seed", "train.micro_batch"}
    assert len({loaded.recipe.data for loaded in plan.values()}) == 1, "one corpus"


def test_the_recipe_is_small_and_has_whole_and_cut_tiles():
    recipe = load_recipe("fp8").recipe
    assert 4_000_000 <= count(recipe.model).total <= 6_000_000
    assert recipe.train.tokens == 2_000_000 and recipe.model.mtp.depth == 0
    sizes = {recipe.model.hidden_size, recipe.model.dense_size, recipe.model.moe.expert_size}
    assert all(size % 128 == 0 for size in sizes), "whole tiles"
    attention = recipe.model.attention
    assert all(size % 128 for size in (attention.q_rank, attention.kv_rank)), "cut tiles"


def record(losses, *, diverged: bool = False) -> Record:
    return Record(
        losses=losses, tokens=[100 * (i + 1) for i in range(len(losses))], seconds=1.5, bits_per_byte=1.25,
        skipped=0, diverged=diverged,
    )  # fmt: skip


def test_the_closing_figures_are_those_worked_out_by_hand():
    """Constant losses: the smoothed ones are equal to them, and so the errors of all steps."""
    records = {
        "fp8-0": [4.04], "bf16-0": [4.0], CONTROL: [4.4], NOISE: [3.96],
        "fp8-1": [2.0], "bf16-1": [2.0], "fp8-2": [0.98], "bf16-2": [1.0],
    }  # fmt: skip
    made = {name: record(losses * 4) for name, losses in records.items()}
    model = load_recipe("fp8").recipe.model
    figures = figures_of(made, model, quick=False, seconds=9.0, picture="p", curves="c")
    assert figures.mean_relative_loss_error_percent == pytest.approx((1 + 0 + 2) / 3, abs=1e-4)
    assert figures.signed_percent == pytest.approx((1 + 0 - 2) / 3, abs=1e-4)
    assert (figures.max_percent, figures.noise_floor_percent, figures.control_percent) == (2.0, 1.0, 10.0)
    assert [seed.mean_percent for seed in figures.seeds] == [1.0, 0.0, 2.0]
    assert (figures.tokens, figures.steps, figures.runs, figures.training_seconds) == (400, 4, 8, 12.0)
    assert not figures.below_limit
    rows = list(csv.DictReader(curves_csv(made, differences(made, quick=False)).splitlines()))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert (rows[3]["tokens"], rows[3]["fp8-0 loss"], rows[3]["fp8-0 error %"]) == ("400", "4.04", "1")


def test_a_run_that_diverged_has_no_figure_and_leaves_the_others_theirs():
    made = {name: record([4.0] * 4) for name in ("fp8-0", "bf16-0", NOISE)}
    made[CONTROL] = record([4.0, 9.0], diverged=True)
    model = load_recipe("fp8").recipe.model
    figures = figures_of(made, model, quick=True, seconds=9.0, picture="p", curves="c")
    assert figures.control_percent is None and figures.diverged == [CONTROL]
    assert figures.mean_relative_loss_error_percent == 0.0 and figures.below_limit
    assert curves_csv(made, differences(made, quick=True)).splitlines()[-1].count(",,") >= 1


def test_the_picture_draws_what_is_finite():
    tokens = [1000, 2000, 3000]
    losses = [Curve("bf16", "a", tokens, [7.0, 5.0, 3.0]), Curve("fp8", "b", tokens, [7.0, 5.0, 3.1])]
    gone = [0.1, math.inf, math.inf]
    errors = [Curve("fp8", "b", tokens, [0.0, 0.1, 3.0]), Curve("control", "c", tokens, gone)]
    svg = draw_picture(losses, errors, 0.25, "one & all")
    paths = [node for node in ET.fromstring(svg).iter() if node.tag.endswith("path")]
    points = {node.get("class"): len(re.split("[ML]", node.get("d", ""))) - 1 for node in paths[:2]}
    assert points == {"bf16": 3, "fp8": 3} and len(paths) == 4
    assert len(re.split("[ML]", paths[2].get("d", ""))) - 1 == 1, "the control, up to where it diverged"
    assert "nan" not in svg and "inf" not in svg and "prefers-color-scheme:dark" in svg


def test_a_run_is_finished_when_it_is_saved_and_measured(tmp_path):
    train = load_recipe("fp8", ["train.tokens=0", "train.steps=2"]).recipe.train
    run = tmp_path / "run"
    assert not is_finished(run, train)
    (run / "checkpoints" / "step-000002").mkdir(parents=True)
    step = {"train/loss": 2.0, "train/elapsed_s": 1.0, "stability/skipped": 0}
    written = [{"step": i, "train/tokens": i, **step} for i in (1, 2)]
    for more, finished in (([], False), ([{"step": 2, "val/bpb": 1.0}], True)):
        text = "".join(json.dumps(line) + "\n" for line in [*written, *more])
        (run / "metrics.jsonl").write_text(text)
        assert is_finished(run, train) is finished
    (run / "metrics.jsonl").write_text(json.dumps(written[0]) + "\n")
    assert not is_finished(run, train)
    (run / "events.jsonl").write_text(json.dumps({"step": 1, "kind": "diverged", "detail": "x"}) + "\n")
    assert is_finished(run, train) and read_record(run).diverged
