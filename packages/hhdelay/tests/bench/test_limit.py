"""The limit is the sum of its table, on the lanes and at the clock of this processor."""

from __future__ import annotations

import pytest

from hhdelay.bench import limit as module
from hhdelay.bench.limit import WORK, cycles_per_step, limit, measure_clock_Hz, vectors
from hhdelay.noise import COS, LOG, ROUNDS, SIN

PARTS = {work.part: work for work in WORK}


def test_every_part_is_counted_once_and_explained() -> None:
    assert len(PARTS) == len(WORK)
    assert all(work.why and work.floats >= 0 and work.integers >= 0 for work in WORK)


def test_the_table_adds_up() -> None:
    assert sum(work.floats for work in WORK) == 86
    assert sum(work.integers for work in WORK) == 27
    assert cycles_per_step() == 43.0, "half of the 86, as the integers fit beside them"


def test_the_noise_is_counted_from_its_definition() -> None:
    """Multiply-adds of the polynomials, rounds of Philox: the numbers that hhdelay.noise says."""
    word, exponent, joined = 1, 2, 2    # sub; t = f - 1 and e as a number; (e - 32) ln 2 and + t LOG
    assert PARTS["logarithm"].floats * 2 == word + exponent + len(LOG) - 1 + joined
    angle, square, products = 2, 1, 3
    assert PARTS["sine and cosine"].floats * 2 == angle + square + len(SIN) + len(COS) - 2 + products
    assert PARTS["Philox"].integers * 4 == ROUNDS * (2 + 2 + 4) + 4


def test_the_powers_lead_to_their_exponents() -> None:
    powers = {1}
    for a, b in ((1, 1), (2, 2), (4, 4), (8, 1), (9, 9), (18, 18), (36, 4), (36, 36)):
        assert {a, b} <= powers
        powers.add(a + b)
    assert {9, 36, 40, 72} <= powers and len(powers) - 1 == PARTS["powers"].floats


@pytest.mark.parametrize(("has", "expected"), [
    ({"avx512f": True, "avx2": True}, ("avx512f", 8)), ({"avx512f": False, "avx2": True}, ("avx2", 4)),
    ({}, ("128 bit", 2)),
])  # fmt: skip
def test_lanes_are_those_of_the_widest_vectors(
    has: dict[str, bool], expected: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "get_host_cpu_features", lambda: has)
    assert vectors() == expected


def test_an_unknown_system_has_narrow_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> dict[str, bool]:
        raise RuntimeError("no features")

    monkeypatch.setattr(module, "get_host_cpu_features", unknown)
    assert vectors() == ("128 bit", 2)


def test_the_clock_is_one_of_a_processor() -> None:
    assert 2e8 < measure_clock_Hz() < 1e10


def test_the_limit_is_lanes_times_clock_over_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure_clock_Hz", lambda: 3e9)
    monkeypatch.setattr(module, "vectors", lambda: ("avx512f", 8))
    assert limit().per_s == pytest.approx(8 * 3e9 / 43)
