"""The search finds what is there, does not find what is not, and goes on where it was stopped."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from hhdelay.cli.main import main
from hhdelay.config.errors import ConfigError
from hhdelay.search import scan as scan_module
from hhdelay.search import search, text
from hhdelay.search.classes import Verdict, verdicts
from hhdelay.search.picture import classes_figure
from hhdelay.search.report import MOST_REFINED, chosen, report
from hhdelay.search.scan import AXIS, scan
from hhdelay.search.space import DELAYS_MS, SETTINGS, SPACE, drawn, radical_inverse
from hhdelay.store.read import open_sweep

SHORT = ("simulation.duration_ms=60", "simulation.warmup_ms=20", "simulation.dt_ms=0.05")


@contextmanager
def silent(_: str):
    yield lambda told: None


def made_up(R: np.ndarray, persists: float, *, intervals: int = 5000, error: float = 0.01) -> xr.Dataset:
    """A scan of one setting with a given R [24]."""
    over, x = (AXIS, "delay_ms"), np.array(DELAYS_MS)
    bounds = {"R_low": R * np.exp(-3.182 * error), "R_high": R * np.exp(3.182 * error)}
    flat = {"intervals": intervals, "mean_ms": 17.0, "rate_Hz": 59.0, "persists": persists}
    columns = {"R": R, **bounds} | {name: np.full(24, value) for name, value in flat.items()}
    axes = [{"name": AXIS, "settings": SETTINGS, "values": [drawn(1)[0]]}]
    return xr.Dataset({name: (over, value[None]) for name, value in columns.items()},
                      {AXIS: [0], "delay_ms": x}, {"axes": json.dumps(axes), "replicas": 4})  # fmt: skip


WAVES = 5.0 + 3.0 * np.cos(2 * np.pi * (np.array(DELAYS_MS) - 9.0) / 17.0)


def test_points_fill_their_ranges_evenly_and_a_longer_list_begins_with_the_shorter() -> None:
    assert [radical_inverse(k, 2) for k in (1, 2, 3, 4)] == [0.5, 0.25, 0.75, 0.125]
    points = drawn(400)
    assert points[:37] == drawn(37) and len(set(points)) == 400
    assert [p[0] for p in points[:4]] == ["EI", "II", "EI", "II"]
    for place, one in enumerate(SPACE, 1):
        values = np.array([p[place] for p in points[::2]])
        part = (values - one.low) / (one.high - one.low)
        if one.logarithmic:
            part = np.log(values / one.low) / np.log(one.high / one.low)
        counts, _ = np.histogram(part, bins=5, range=(0, 1))
        assert counts.sum() == 200 and counts.min() >= 32, one.setting


def test_two_maxima_without_persistence_are_sought() -> None:
    [found] = verdicts(made_up(WAVES, 0.0))
    assert found.sought and found.persists == 0.0
    np.testing.assert_allclose(found.maxima_ms, (9.0, 26.0, 43.0), atol=0.5)
    assert found.contrast == pytest.approx(np.log(8 / 2), abs=0.1)


@pytest.mark.parametrize(("R", "persists", "more"), [
    (WAVES, 0.25, {}),                                          # firing goes on
    (np.linspace(2, 9, 24), 0.0, {}),                           # no maximum
    (5 + 3 * np.exp(-((np.array(DELAYS_MS) - 20) / 5) ** 2), 0.0, {}),      # one
    (5 + 3 * np.cos(2 * np.pi * np.array(DELAYS_MS) / 46), 0.0, {}),        # none but at the edges
    (WAVES, 0.0, {"intervals": 12}),                            # too few intervals, whatever the replicas say
    (WAVES, 0.0, {"error": 0.5}),                               # replicas that differ
])  # fmt: skip
def test_nothing_else_is_sought(R: np.ndarray, persists: float, more: dict[str, float]) -> None:
    [found] = verdicts(made_up(R, persists, **more))
    assert not found.sought


def test_classes_count_every_setting_once_and_the_strongest_are_run_again() -> None:
    one = verdicts(made_up(WAVES, 0.0))[0]
    kinds = [("EI", "II")[k % 2] for k in range(60)]
    many = [
        replace_setting(one, kind)._replace(number=k, persists=(0.0, 0.5, 1.0)[k % 3],
                                            maxima_ms=(9.0,) * (k % 4), contrast=float(k))
        for k, kind in enumerate(kinds)
    ]  # fmt: skip
    found = report(many, [])
    counts = [n for table in found["classes"].values() for row in table.values() for n in row.values()]
    assert sum(counts) == found["settings"] == 60
    assert found["candidates"] == sum(v.sought for v in many) == 10
    picked = chosen(many * 3)
    assert len(picked) == MOST_REFINED and picked[0].contrast == max(v.contrast for v in many if v.sought)
    assert "sought, two or more maxima and no delay at which it goes on: 10" in text(found)


def replace_setting(one: Verdict, kind: str) -> Verdict:
    return one._replace(setting={**one.setting, "motif.kind": kind})


def test_a_scan_knows_the_working_point_and_a_quiet_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real runs: the recipe `ei` has maxima and fires on; with hardly any coupling neither is so."""
    given = {"motif.kind": "EI", "neuron.I_uA_cm2": 5.0, "noise.D_uA2_ms_cm4": 1.0, "motif.g_mS_cm2": 2.0,
             "synapse.inh_rise_per_ms": 2.0, "synapse.inh_decay_per_ms": 1.0,
             "synapse.exc_rise_per_ms": 2.0, "synapse.exc_decay_per_ms": 1.0}  # fmt: skip
    quiet = given | {"motif.g_mS_cm2": 0.01, "noise.D_uA2_ms_cm4": 8.0, "neuron.I_uA_cm2": 0.0}
    points = [tuple(one[name] for name in SETTINGS) for one in (given, quiet)]
    monkeypatch.setattr(scan_module, "drawn", lambda count: tuple(points[:count]))
    scan(tmp_path / "scan.zarr", 2, workers=1)
    firing, still = verdicts(open_sweep(tmp_path / "scan.zarr"))
    assert len(firing.maxima_ms) >= 2 and firing.persists > 0.5 and not firing.sought
    assert still.maxima_ms == () and still.persists == 0.0


def test_a_search_goes_on_and_repeats_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", "--out", str(tmp_path / "s"), "--settings", "4", "--workers", "1", *SHORT]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == 4
    assert json.loads((tmp_path / "s/search.json").read_text()) == found
    assert (tmp_path / "s/search.png").read_bytes()[:4] == b"\x89PNG"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("c/*") if path.is_file()}
    assert main(words) == 0
    assert "4 settings" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_picture_has_a_second_part_where_something_was_run_again() -> None:
    data = made_up(WAVES, 0.0)
    found = verdicts(data)
    assert len(classes_figure(found, None, []).axes) == 1
    left, right = classes_figure(found, data, found).axes
    assert "without noise" in left.get_ylabel() and len(right.lines) == 1


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 settings are asked for. Fix: ask for 1"):
        drawn(0)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make .*Fix: give a folder"):
        search(tmp_path / "file" / "s", 2, silent)
    with pytest.raises(ConfigError, match="unknown setting"):
        search(tmp_path / "s", 2, silent, overrides=("neuron.speed=2",))
