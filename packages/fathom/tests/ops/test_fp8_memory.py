"""FP8 halves what the experts hold, and `docs/guide/fp8.md` says how much in figures that are counted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from fathom.config.presets import load_preset
from fathom.ops.held import held, storage_bytes

TOP = Path(__file__).parents[4]
TOKENS = 512


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The benchmark."""
    monkeypatch.syspath_prepend(TOP / "benchmarks")
    yield import_module("fp8_memory")


def guide(row: str) -> list[float]:
    """The figures of a row of the guide."""
    page = (TOP / "docs/guide/fp8.md").read_text(encoding="utf-8")
    found = re.findall(rf"^\| {re.escape(row)} \|(.*)\|$", page, re.M)
    assert len(found) == 1, f"docs/guide/fp8.md has {len(found)} rows {row!r}"
    return [float(cell.replace(",", "")) for cell in found[0].split("|")]


def test_experts_in_fp8_hold_less_than_half_of_what_bf16_holds(memory):
    total = {}
    for name, form in memory.FORMS.items():
        pieces = memory.activations(memory.SMALL, form, TOKENS, "moe")
        total[name] = sum(piece.nbytes for piece in pieces)
    assert total["fp8"] <= 0.5 * total["bf16"] < total["bf16 plain"], total
    assert total["fp8"] < total["fp8 rows"] < total["bf16"], total


@pytest.mark.parametrize("form", ["bf16", "fp8 rows", "fp8"])
def test_the_formula_gives_what_is_counted(memory, form):
    """But for a few bytes that do not grow with the tokens."""
    pieces = memory.activations(memory.SMALL, memory.FORMS[form], TOKENS, "moe")
    counted = sum(piece.nbytes for piece in pieces)
    assert 0 <= counted - TOKENS * memory.moe_bytes(memory.SMALL, form) <= 1024


def test_the_guide_has_these_figures(memory):
    forms = ("bf16", "fp8 rows", "fp8")
    for row, config in (("counted", memory.QUARTER), ("V3, computed", load_preset("v3"))):
        figures = guide(f"experts, {row}")
        assert figures == pytest.approx([memory.moe_bytes(config, form) for form in forms], abs=0.5)


def test_the_guide_has_the_bytes_of_a_parameter(memory):
    runs = ("bf16", torch.float32), ("bf16", torch.bfloat16), ("fp8", torch.bfloat16)
    states = [memory.state(memory.SMALL, memory.FORMS[form], moments) for form, moments in runs]
    for kind in states[0]:
        assert [round(state[kind], 1) for state in states] == guide(kind), kind
    assert [round(sum(state.values()), 1) for state in states] == guide("bytes per parameter")


@pytest.mark.parametrize("form", ["bf16", "fp8 rows", "fp8"])
def test_nothing_else_is_kept(memory, form):
    """By as much as the allocator says memory has grown: the output, and what is counted."""
    model, forward = memory.passing(memory.SMALL, memory.FORMS[form], TOKENS, "moe")
    forward()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        y_BTD, _ = forward()
    grown = sum(event.self_cpu_memory_usage for event in profile.key_averages())
    kept = sum(piece.nbytes for piece in held(model, forward)) + y_BTD.nbytes
    # The profiler misses a few small allocations.
    assert 0.97 <= grown / kept <= 1.005, f"memory has grown by {grown:,} bytes, {kept:,} are counted"


def test_what_is_held_is_named_and_counted_once():
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.Sigmoid(), nn.Linear(8, 8, bias=False))
    x_NX = torch.zeros(3, 4)
    found = held(model, lambda: model(x_NX) * model(x_NX))
    want = [("0", (3, 4)), ("1", (3, 8)), ("1", (3, 8)), ("", (3, 8)), ("", (3, 8))]
    assert [(piece.where, tuple(piece.shape)) for piece in found] == want
    assert sum(piece.nbytes for piece in found) == 4 * (3 * 4 + 4 * 3 * 8)  # x once; sigmoids; both factors
    assert storage_bytes([x_NX, x_NX[1:], x_NX.T]) == x_NX.nbytes
