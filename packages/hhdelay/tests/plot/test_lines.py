"""Curves, bands, marks and labels of the figures over one axis."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PolyCollection

from hhdelay.config.errors import ConfigError
from hhdelay.plot.lines import coherence_lines, panels, phase_lines


def test_R_has_a_band_maxima_and_the_law(ii_line: xr.Dataset) -> None:
    made = coherence_lines(ii_line)
    upper, lower = made.axes
    assert (upper.get_ylabel(), lower.get_xlabel()) == ("coherence R (1)", "delay τ (ms)")
    assert lower.get_ylabel() == "mean\ninterval (ms)" and upper.get_yscale() == "log"
    curve = upper.lines[0]
    np.testing.assert_allclose(np.asarray(curve.get_ydata()), ii_line["R"].values)
    assert len([c for c in upper.collections if isinstance(c, PolyCollection)]) == 1
    marks = {str(line.get_label()): np.asarray(line.get_xdata()) for line in upper.lines[1:]}
    assert marks["maximum"] == pytest.approx([9.95, 18.45, 26.95, 35.45, 43.95], abs=0.3)
    assert marks["cut off by the range"] == pytest.approx([1.45], abs=0.6)
    law = next(name for name in marks if name.startswith("law"))
    assert "k T/2 − 7.05 ms, T = 17.0 ms" in law
    assert marks[law] == pytest.approx([1.45, 9.95, 18.45, 26.95, 35.45, 43.95])
    assert [text.get_text() for text in upper.texts] == [f"{x:.1f}" for x in marks["maximum"]]


def test_noise_has_a_logarithmic_axis_and_no_law(noise_line: xr.Dataset) -> None:
    upper, lower = coherence_lines(noise_line).axes
    assert lower.get_xlabel() == "noise intensity D (µA² ms/cm⁴)" and upper.get_xscale() == "log"
    assert not [line for line in upper.lines if str(line.get_label()).startswith("law")]
    assert upper.get_title(loc="left").replace("\u00a0", " ") == "one neuron, I = 5 µA/cm²"


def test_a_second_axis_makes_a_line_a_value(ei_map: xr.Dataset) -> None:
    made = coherence_lines(ei_map)
    names = [text.get_text().replace("\u00a0", " ") for text in made.legends[0].get_texts()]
    assert names == [f"g = {g} mS/cm²" for g in ("0.4", "1", "2", "3.5")]
    assert len(made.axes[0].lines) == len(made.axes[1].lines) == 4


def test_gaps_of_an_unfinished_sweep_stay_gaps(ii_line: xr.Dataset) -> None:
    for name in ii_line:
        ii_line[name].values[10:20] = np.nan
    curve = np.asarray(coherence_lines(ii_line).axes[0].lines[0].get_ydata())
    assert np.isnan(curve).sum() == 10
    for name in ii_line:
        ii_line[name].values[:] = np.nan
    coherence_lines(ii_line)


def test_an_axis_out_of_order_is_sorted(ii_line: xr.Dataset) -> None:
    shuffled = ii_line.isel(delay_ms=np.random.default_rng(0).permutation(ii_line.sizes["delay_ms"]))
    for one in (ii_line, shuffled):
        x = np.asarray(coherence_lines(one).axes[0].lines[0].get_xdata())
        assert (np.diff(x) > 0).all()


def test_phases_alternate_at_the_lines_of_the_law(ii_line: xr.Dataset) -> None:
    upper, lower = phase_lines(ii_line).axes
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("phase (intervals)", "locking |z| (1)")
    bars = [line for line in upper.lines if line.get_linewidth() > 2]
    assert [float(np.asarray(bar.get_ydata())[0]) for bar in bars] == [0.5, 0.0, 0.5, 0.0, 0.5, 0.0]
    offsets = np.asarray(upper.collections[0].get_offsets())
    assert offsets[:, 1].min() >= -0.25 and offsets[:, 1].max() < 0.75


def test_phases_need_one_axis_and_two_neurons(ei_map: xr.Dataset, ii_line: xr.Dataset) -> None:
    ii_line["phase"].values[:] = np.nan
    for data in (ei_map, ii_line):
        with pytest.raises(ConfigError, match="Fix: "):
            phase_lines(data)


def test_panels_share_R(ei_map: xr.Dataset, ii_line: xr.Dataset, noise_line: xr.Dataset) -> None:
    made = panels([ei_map, ii_line, noise_line])
    assert len(made.axes) == 3
    assert len({axes.get_ylim() for axes in made.axes}) == 1
    assert [len(axes.lines) for axes in made.axes] == [4, 1, 1]
    assert [axes.get_ylabel() for axes in made.axes] == ["coherence R (1)", "", ""]
    with pytest.raises(ConfigError, match="Fix: "):
        panels([])


def test_what_is_no_sweep_is_one_line(ii_line: xr.Dataset) -> None:
    bare = ii_line.copy()
    bare.attrs = {}
    for data in (xr.Dataset(), bare, ii_line.drop_vars("delay_ms")):
        with pytest.raises(ConfigError, match="Fix: "):
            coherence_lines(data)
