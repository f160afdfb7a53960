"""The noise is the published generator, has the law it promises, and depends on its key alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hhdelay.noise import COS, LOG, SIN, Keys, gaussian_pair, normals, philox, triangular
from hhdelay.scalar.noise import four_kicks, gaussian_pair_one, philox_one, triangular_one

# Random123 1.14, tests/kat_vectors, "philox4x32 10": counter, key, result
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]  # fmt: skip


def words(*numbers: int) -> list[np.ndarray]:
    return [np.array([one], dtype=np.uint64) for one in numbers]


def keys(*, seed: int = 7, cells: int = 1, replica: int = 0, first: int = 0) -> Keys:
    each = np.arange(first, first + cells, dtype=np.uint64)
    return Keys(np.full_like(each, seed), each, np.full_like(each, replica))


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_philox_gives_the_published_words(counter: tuple, key: tuple, result: tuple) -> None:
    assert tuple(int(w[0]) for w in philox(*words(*counter), *words(*key))) == result
    assert tuple(int(w) for w in philox_one(*map(np.uint64, counter + key))) == result


@pytest.mark.parametrize(("polynomial", "function", "low", "high"), [
    (LOG, lambda t: np.log1p(t) / t, 0.5**0.5 - 1, 2**0.5 - 1),
    (SIN, lambda t: np.sin(np.pi * np.sqrt(t)) / np.sqrt(t), 0.0, 0.25),
    (COS, lambda t: np.cos(np.pi * np.sqrt(t)), 0.0, 0.25),
], ids=["LOG", "SIN", "COS"])  # fmt: skip
def test_the_polynomials_are_near_and_interpolate(polynomial, function, low: float, high: float) -> None:
    t = np.linspace(low, high, 10_000) + 1e-9
    assert np.abs(np.polynomial.polynomial.polyval(t, polynomial) - function(t)).max() < 1e-9
    made = np.polynomial.chebyshev.Chebyshev.interpolate(function, len(polynomial) - 1, domain=[low, high])
    np.testing.assert_allclose(polynomial, made.convert(kind=np.polynomial.Polynomial).coef, rtol=1e-7)


EDGES = [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xB504F333, 0xB504F334, 0xFFFFFFFE, 0xFFFFFFFF]


def test_no_word_gives_nonsense() -> None:
    edges = np.array(EDGES, dtype=np.uint64)
    p, q = (a.ravel() for a in np.meshgrid(edges, edges))
    for z in gaussian_pair(p, q):
        assert np.isfinite(z).all() and np.abs(z).max() < 6.78
    assert np.abs(triangular(p)).max() < 6**0.5


def test_box_and_muller_with_the_functions_themselves() -> None:
    p, q = np.random.default_rng(1).integers(0, 2**32, (2, 10_000), dtype=np.uint64)
    radius = np.sqrt(-2 * np.log((p + 0.5) / 2.0**32))
    turn = np.pi * (((q & np.uint64(0x7FFFFFFF)) + 0.5) / 2.0**31 - 0.5)
    first, second = gaussian_pair(p, q)
    np.testing.assert_allclose(first, radius * np.cos(turn) * np.where(q >> np.uint64(31), -1, 1), atol=1e-8)
    np.testing.assert_allclose(second, radius * np.sin(turn), atol=1e-8)


def test_the_compiled_twins_agree() -> None:
    p, q = np.random.default_rng(2).integers(0, 2**32, (2, 2000), dtype=np.uint64)
    twins = np.array([gaussian_pair_one(a, b) for a, b in zip(p, q, strict=True)]).T
    np.testing.assert_allclose(twins, gaussian_pair(p, q), rtol=0, atol=1e-14)
    assert [triangular_one(w) for w in p] == triangular(p).tolist()
    for law in ("gaussian", "triangular"):
        z = np.zeros(4)
        four_kicks(z, tuple(map(np.uint64, (5, 1, 3, 2))), np.uint64(2**40 + 9), law == "gaussian")
        one = Keys(*words(2**40 + 9, 2, 3))
        np.testing.assert_allclose(z, normals(one, 2, 20, 4, law)[:, 0, 1], atol=1e-14)


@pytest.mark.parametrize("law", ["gaussian", "triangular"])
def test_the_moments_are_right(law: str) -> None:
    z = normals(keys(cells=50), 2, 0, 20_000, law).ravel()
    error = len(z) ** -0.5
    assert abs(z.mean()) < 4 * error
    assert abs(z.var() - 1) < 4 * error * 2**0.5
    assert abs((z**3).mean()) < 4 * error * 15**0.5
    fourth = 3.0 if law == "gaussian" else 2.4
    assert abs((z**4).mean() - fourth) < 4 * error * 96**0.5


def test_the_gaussian_is_one() -> None:
    z = np.sort(normals(keys(cells=10), 2, 0, 20_000).ravel())
    law = np.array([0.5 * math.erfc(-one * 0.5**0.5) for one in z])
    distance = np.abs(law - (np.arange(len(z)) + 0.5) / len(z)).max()
    assert distance * len(z) ** 0.5 < 1.95, "Kolmogorov and Smirnov, p = 0.001"
    for bound in (3.0, 4.0):
        expected = len(z) * math.erfc(bound * 0.5**0.5)
        assert abs((np.abs(z) > bound).sum() - expected) < 5 * expected**0.5 + 1


def test_other_keys_and_neighbouring_steps_are_unrelated() -> None:
    base = normals(keys(), 2, 0, 40_000)[:, 0, :]
    changed = (keys(seed=8), keys(seed=7 + 2**32), keys(replica=1), keys(first=1))
    others = [base[:, 1], *(normals(one, 1, 0, 40_000)[:, 0, 0] for one in changed)]
    others += [np.roll(base[:, 0], lag) for lag in (1, 2, 3, 4, 5)]
    for other in others:
        assert abs(np.mean(base[:, 0] * other)) < 4.5 / 200
        assert abs(np.mean((base[:, 0] ** 2 - 1) * (other**2 - 1))) < 4.5 * 2 / 200


def test_any_order_and_any_piece_gives_the_same_bits() -> None:
    whole = normals(keys(cells=5), 3, 0, 103)
    for first, steps in ((0, 1), (3, 1), (2, 7), (50, 53), (99, 4)):
        assert (normals(keys(cells=5), 3, first, steps) == whole[first : first + steps]).all()
    assert (normals(keys(cells=2, first=3), 2, 0, 103) == whole[:, 3:, :2]).all()


def test_steps_beyond_32_bits_have_noise_of_their_own() -> None:
    late = normals(keys(), 1, 2**33, 8)
    assert np.abs(late).min() > 0 and not np.isin(late, normals(keys(), 1, 0, 8)).any()
