"""Loads: every token is counted once, however many lines share a column, and a byte says its ratio."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path

import pytest

from fathom.report.loads import EVEN, PER_OCTAVE, Loads, layer_labels, level, read_loads


def write(folder: Path, *lines: object) -> Loads | None:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "loads.jsonl").write_text(text, encoding="utf-8")
    return read_loads(folder)


def line(step: int, *rows: list[int]) -> dict[str, object]:
    return {"step": step, "counts": list(rows)}


@pytest.mark.parametrize("lines", [1, 7, 8, 9, 100, 1000])
def test_columns_are_few_and_lose_no_token(lines: int) -> None:
    loads = Loads(most=4, shape=(2, 3))
    for step in range(1, lines + 1):
        loads.add(step, [step, 1, 0, 2, 2, 2])
    assert len(loads.counts) == len(loads.steps) <= 8
    assert loads.steps[-1] == lines
    total = [sum(column[i] for column in loads.counts) for i in range(6)]
    assert total == [lines * (lines + 1) // 2, lines, 0, 2 * lines, 2 * lines, 2 * lines]
    whole = lines - lines % loads.stride
    assert list(loads.steps)[: whole // loads.stride] == list(range(loads.stride, whole + 1, loads.stride))


@pytest.mark.parametrize("ratio", [1 / 15, 0.1, 0.5, 0.99, 1.0, 1.01, 1.5, 2.0, 8.0, 15.0])
def test_a_level_is_within_two_percent_of_its_ratio(ratio: float) -> None:
    found = level(1000 * ratio, 1000.0)
    assert 2 ** ((found - EVEN) / PER_OCTAVE) == pytest.approx(ratio, rel=0.011)


def test_levels_at_the_ends() -> None:
    assert level(0, 10.0) == 1
    assert level(1e9, 1.0) == 255 and level(1, 1e9) == 1
    assert level(0, 0.0) == 0
    assert level(10, 10.0) == EVEN


def test_the_packed_map_says_what_the_counts_say(tmp_path: Path) -> None:
    loads = write(tmp_path, line(10, [1, 3], [2, 2]), line(20, [4, 0], [1, 7]))
    assert loads is not None
    packed = loads.packed(["a", "b"])
    levels = base64.b64decode(packed["levels"])
    places = [(layer, e, c) for layer in (0, 1) for e in (0, 1) for c in (0, 1)]
    cells = {(layer, e, c): levels[(layer * 2 + e) * 2 + c] for layer, e, c in places}
    want = {
        (0, 0, 0): 0.5, (0, 1, 0): 1.5, (1, 0, 0): 1.0, (1, 1, 0): 1.0,
        (0, 0, 1): 2.0, (0, 1, 1): 0.0, (1, 0, 1): 0.25, (1, 1, 1): 1.75,
    }  # fmt: skip
    assert cells == {place: level(ratio, 1.0) for place, ratio in want.items()}
    assert packed["violations"] == [1.0, 0.75]
    assert (packed["steps"], packed["experts"]) == ([10, 20], 2)


@pytest.mark.parametrize(
    "damage",
    ['{"step": 15, "counts": [[1', line(15, [1, 2, 3]), line(15), line(15, [1], [1, 2]),
     line(15, [-1, 2], [3, 4]), {"step": 15, "counts": [[1.5, 2], [3, 4]]}, {"step": 15, "counts": "x"}],
)  # fmt: skip
def test_a_damaged_line_is_left_out_and_counted(tmp_path: Path, damage: object) -> None:
    loads = write(tmp_path, line(10, [1, 3], [2, 2]), damage, line(20, [4, 0], [1, 7]))
    assert loads is not None
    assert (list(loads.steps), loads.damaged) == ([10, 20], 1)


def test_a_layer_without_tokens_is_no_error(tmp_path: Path) -> None:
    loads = write(tmp_path, line(10, [0, 0], [2, 2]))
    assert loads is not None and loads.violations() == [0.0, 0.0]
    assert loads.level_bytes() == bytes([0, 0, EVEN, EVEN])


@pytest.mark.parametrize("lines", [(), ("", "x"), (line(1),), ({"step": 1},)])
def test_without_a_sound_line_there_is_no_map(tmp_path: Path, lines: tuple[object, ...]) -> None:
    assert write(tmp_path, *lines) is None


def test_no_file_no_map(tmp_path: Path) -> None:
    assert read_loads(tmp_path) is None


def test_a_second_attempt_takes_the_place_of_the_first(tmp_path: Path) -> None:
    loads = write(tmp_path, *(line(s, [s, 0], [1, 1]) for s in (10, 20, 30, 20, 30, 40)))
    assert loads is not None
    assert list(loads.steps) == [10, 20, 30, 40]
    assert math.isclose(sum(column[0] for column in loads.counts), 100)


def test_layers_are_named_by_their_place_in_the_network() -> None:
    assert layer_labels(4, 1, 4) == ["layer 2", "layer 3", "layer 4", "MTP 1"]
    assert layer_labels(2, None, 4) == ["MoE layer 1", "MoE layer 2"]
    assert layer_labels(2, 1, 9) == ["MoE layer 1", "MoE layer 2"]
