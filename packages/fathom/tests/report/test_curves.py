"""Curves: read from damaged files, thinned without losing a spike, smoothed without lag."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from fathom.report import columns
from fathom.report.curves import Curves, read_curves, smooth, thin

NAN = math.nan


def read(folder: Path, *lines: object) -> Curves:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    return read_curves(folder)


def test_each_line_is_a_row_and_a_second_line_of_a_step_adds_to_it(tmp_path: Path) -> None:
    curves = read(
        tmp_path,
        {"step": 1, "train/loss": 2.5},
        {"step": 2, "train/loss": 2.0, "train/tokens": 64},
        {"step": 2, "val/bpb": 1.25},
    )
    assert list(curves.steps) == [1, 2]
    assert list(curves[columns.LOSS]) == [2.5, 2.0]
    assert math.isnan(curves[columns.BPB][0]) and curves[columns.BPB][1] == 1.25
    assert curves.damaged == 0


@pytest.mark.parametrize(
    "damage",
    [
        '{"step": 3, "train/lo', "[1, 2]", '{"train/loss": 1.0}', '{"step": true}', '{"step": -1}',
        '{"step": 1.5}', '{"step": "3"}', '{"step": 99999999999999999999}', "[" * 100_000, "\x00\x01",
        '{"step": ' + "9" * 5000,
    ],
)  # fmt: skip
def test_a_damaged_line_is_left_out_and_counted(tmp_path: Path, damage: str) -> None:
    curves = read(tmp_path, {"step": 1, "train/loss": 2.5}, damage, {"step": 2, "train/loss": 2.0})
    assert (list(curves.steps), list(curves[columns.LOSS]), curves.damaged) == ([1, 2], [2.5, 2.0], 1)


def test_bytes_that_are_no_text_are_damage(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "train/loss": 2.0}\n\xff\xfe{"st\n')
    assert read_curves(tmp_path).damaged == 1


@pytest.mark.parametrize("value", [None, "1.0", True, [], "NaN", 10**400])
def test_what_is_no_finite_number_is_missing(tmp_path: Path, value: object) -> None:
    curves = read(tmp_path, {"step": 1, "train/loss": value, "train/lr": 0.5})
    assert math.isnan(curves[columns.LOSS][0]) and curves[columns.LR][0] == 0.5


def test_bare_nan_and_infinity_are_missing(tmp_path: Path) -> None:
    curves = read(tmp_path, '{"step": 1, "train/loss": NaN, "train/lr": -Infinity, "train/grad_norm": 1e999}')
    assert all(math.isnan(curves[name][0]) for name in columns.ALL)


def test_a_second_attempt_takes_the_place_of_the_first(tmp_path: Path) -> None:
    lines = [{"step": s, "train/loss": float(s)} for s in (1, 2, 3, 4)]
    again = [{"step": s, "train/loss": 10.0 * s} for s in (3, 4, 5)]
    curves = read(tmp_path, *lines, *again)
    assert list(curves.steps) == [1, 2, 3, 4, 5]
    assert list(curves[columns.LOSS]) == [1.0, 2.0, 30.0, 40.0, 50.0]


def test_thinning_keeps_every_spike_and_both_ends() -> None:
    draw = random.Random(0)
    values = [math.exp(-i / 300_000) + 0.01 * draw.random() for i in range(1_000_000)]
    for place, spike in ((123_456, 50.0), (123_999, -50.0), (999_000, 70.0)):
        values[place] = spike
    kept = thin(values, 1500)
    assert len(kept) <= 1500
    assert kept == sorted(set(kept))
    assert {0, 999_999, 123_456, 123_999, 999_000} <= set(kept)


@pytest.mark.parametrize("most", [4, 5, 7, 100])
@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 99, 101, 1000])
def test_thinning_gives_no_more_than_asked_and_all_where_they_fit(n: int, most: int) -> None:
    draw = random.Random(n)
    values = [NAN if draw.random() < 0.2 else draw.random() for _ in range(n)]
    there = [i for i, v in enumerate(values) if v == v]
    kept = thin(values, most)
    assert set(kept) <= set(there) and len(kept) <= most
    if len(there) <= most:
        assert kept == there
    else:
        assert {min(values[i] for i in there), max(values[i] for i in there)} <= {values[i] for i in kept}
        assert (kept[0], kept[-1]) == (there[0], there[-1])


@pytest.mark.parametrize("width", [1, 2, 5, 18])
def test_smoothing_is_the_mean_around_each_value(width: int) -> None:
    draw = random.Random(width)
    values = [NAN if draw.random() < 0.1 else draw.gauss(0.0, 1.0) for _ in range(60)]
    for i, found in enumerate(smooth(values, width)):
        reach = min(width // 2, i)
        around = [v for v in values[i - reach : i + reach + 1] if v == v]
        if math.isnan(values[i]):
            assert math.isnan(found)
        else:
            assert found == pytest.approx(sum(around) / len(around), abs=1e-12)


def test_smoothing_a_line_changes_nothing_at_its_start() -> None:
    """A mean of the past would lag behind a falling loss."""
    line = [100.0 - i for i in range(80)]
    assert list(smooth(line, 9))[:76] == pytest.approx(line[:76])


def test_final_figures_leave_out_skipped_steps(tmp_path: Path) -> None:
    lines = [{"step": s, "train/loss": 2.0, "stability/skipped": 0} for s in range(1, 100)]
    curves = read(tmp_path, *lines, {"step": 100, "train/loss": 999.0, "stability/skipped": 1})
    assert curves.width == 2
    assert curves.final(columns.LOSS) == 2.0
    assert math.isnan(curves.taken(columns.LOSS)[-1]) and curves[columns.LOSS][-1] == 999.0
