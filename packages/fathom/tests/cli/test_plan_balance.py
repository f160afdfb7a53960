"""`fathom plan balance` places the experts of a run, and says on loads it has not seen how well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fathom.cli.main import main
from fathom.placement import Layout, eplb

L, E, LINES = 2, 16, 40


def a_run(folder: Path, counts: Any) -> Path:
    folder.mkdir()
    steps = range(1, len(counts) + 1)
    write(folder / "metrics.jsonl", [{"step": s, "loss": 3.0, "tokens": 64 * s} for s in steps])
    tables = zip(steps, counts.tolist(), strict=True)
    write(folder / "loads.jsonl", [{"step": s, "counts": table} for s, table in tables])
    return folder


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def loads() -> Any:
    """Two layers whose first experts are the busiest, half of the time; then their last ones."""
    draw = np.random.default_rng(0)
    mean = 4000.0 / np.arange(1, E + 1) ** 0.5
    early, late = draw.poisson(mean, (LINES // 2, L, E)), draw.poisson(mean[::-1], (LINES // 2, L, E))
    return np.concatenate([early, late])


def figures(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["plan", "balance", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_it_is_made_of_the_third_quarter_and_judged_by_the_last(
    tmp_path: Path, loads: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = a_run(tmp_path / "run", loads), tmp_path / "placement.json"
    found = figures(capsys, str(run), "--devices", "4", "--nodes", "2", "--groups", "4", "--out", str(out))
    layout = Layout(slots=20, devices=4, nodes=2, groups=4)
    expected = eplb(loads[20:30].sum(axis=0, dtype=np.float64), layout)
    written = json.loads(out.read_text())
    assert written["expert_of_slot"] == expected.expert_LR.tolist()
    assert written["copies"] == expected.copies_LE.tolist()
    assert written["slots_of_expert"] == expected.slots_LEK.tolist()
    later = expected.imbalance(loads[30:].sum(axis=0, dtype=np.float64))
    assert found["placed_later"] == pytest.approx(later.tolist(), abs=1e-4)
    assert max(found["placed_later"]) < 1.2 < 1.5 < min(found["in_order_later"])
    assert {k: found[k] for k in ("experts", "slots", "devices", "nodes", "groups")} == {
        "experts": E, "slots": 20, "devices": 4, "nodes": 2, "groups": 4,
    }  # fmt: skip


def test_a_table_of_the_layers(tmp_path: Path, loads: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "balance", str(a_run(tmp_path / "run", loads)), "--devices", "4"]) == 0
    title, _, heads, *rows = capsys.readouterr().out.splitlines()
    assert title == "16 experts in 20 slots on 4 devices, 1 nodes" and "in order" in heads
    assert [row.split("  ")[0] for row in rows] == ["MoE layer 1", "MoE layer 2", "mean"]
    values = np.array([row.split()[-3:] for row in rows], dtype=float)
    np.testing.assert_allclose(values[2], values[:2].mean(axis=0), atol=1e-3)


def test_devices_that_do_not_divide_the_experts(
    tmp_path: Path, loads: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = figures(capsys, str(a_run(tmp_path / "run", loads[:3])), "--devices", "5")
    assert found["slots"] == 25 and "in_order_later" not in found
    assert found["placed"] == found["placed_later"], "three lines have no quarters"


@pytest.mark.parametrize(("words", "message"), [
    (["--devices", "4", "--slots", "18"], "18 slots on 4 devices are not even. Fix: take a multiple of 4"),
    (["--devices", "4", "--slots", "8"], "8 slots cannot hold 16 experts. Fix: give 16 slots or more"),
    (["--devices", "4", "--groups", "3"], "16 experts in 3 groups are not even. Fix: "),
    (["--devices", "4", "--out", "nowhere/x.json"], "there is no folder nowhere. Fix: "),
])  # fmt: skip
def test_impossible_layouts(
    words: list[str], message: str, tmp_path: Path, loads: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "balance", str(a_run(tmp_path / "run", loads)), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_run_without_experts(tmp_path: Path, loads: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = a_run(tmp_path / "run", loads)
    (run / "loads.jsonl").unlink()
    assert main(["plan", "balance", str(run), "--devices", "2"]) == 2
    assert "has no loads of experts. Fix: give a run of a network with experts" in capsys.readouterr().err
