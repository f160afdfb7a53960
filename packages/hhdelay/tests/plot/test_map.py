"""The map shows every cell once, in the right place, and says what it leaves out."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.figure import Figure

from hhdelay.analysis.laws import law_of, resonances
from hhdelay.config.errors import ConfigError
from hhdelay.config.motif import Motif
from hhdelay.plot.map import cell_edges, coherence_map


def mesh_of(figure: Figure) -> QuadMesh:
    return next(c for c in reversed(figure.axes[0].collections) if isinstance(c, QuadMesh))


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_axes_and_colour_bar_have_units_and_real_values(ei_map: xr.Dataset) -> None:
    made = coherence_map(ei_map)
    axes, bar = made.axes
    assert axes.get_xlabel() == "delay τ (ms)"
    assert axes.get_ylabel() == "coupling strength g (mS/cm²)"
    assert bar.get_ylabel() == "coherence R (1)"
    made.draw_without_rendering()
    assert [text.get_text() for text in bar.get_yticklabels()] == ["1", "2", "5", "10"]
    assert "Delay-tuned coherence" in axes.get_title(loc="left")
    assert "resonance" not in axes.get_title(loc="left").lower()


def test_cells_lie_about_their_values(ei_map: xr.Dataset) -> None:
    mesh = mesh_of(coherence_map(ei_map))
    values = mesh.get_array()
    assert values is not None and values.shape == (4, 33)
    np.testing.assert_allclose(values, ei_map["R"].values.T)
    corners = mesh.get_coordinates()
    assert corners[0, :3, 0].tolist() == [0.25, 1.75, 3.25]
    assert corners[:, 0, 1].tolist() == pytest.approx([0.1, 0.7, 1.5, 2.75, 4.25])


def test_edges() -> None:
    assert cell_edges(np.array([1.0, 2.0, 4.0])).tolist() == [0.5, 1.5, 3.0, 5.0]
    assert cell_edges(np.array([1.0, 10.0, 100.0]), logarithmic=True) == pytest.approx(
        [10**-0.5, 10**0.5, 10**1.5, 10**2.5]
    )
    assert np.diff(cell_edges(np.array([3.0]))).tolist() == [1.0]


def test_strokes_cover_the_cells_that_persist_and_no_others(ei_map: xr.Dataset) -> None:
    ei_map["persists"].values[5, 2] = 0.0
    ei_map["persists"].values[0, 0] = np.nan
    made = coherence_map(ei_map)
    (strokes,) = (c for c in made.axes[0].collections if isinstance(c, LineCollection))
    clip = strokes.get_clip_path()
    assert clip is not None
    path = clip._path  # type: ignore[union-attr]
    for d, delay in enumerate(ei_map["delay_ms"].values):
        for g, strength in enumerate(ei_map["g_mS_cm2"].values):
            inside = bool(path.contains_point((delay, strength)))
            assert inside == (ei_map["persists"].values[d, g] >= 0.5), (delay, strength)
    assert "fires on without noise" in legend_of(made)
    ei_map["persists"].values[:] = 0.0
    assert "fires on without noise" not in legend_of(coherence_map(ei_map))


def test_an_unfinished_map_is_drawn_with_grey_cells(ei_map: xr.Dataset) -> None:
    for name in ei_map:
        ei_map[name].values[20:, 1:] = np.nan
    ei_map["R"].values[0, 0] = np.nan     # run, and silent
    made = coherence_map(ei_map)
    values = mesh_of(made).get_array()
    assert np.ma.getmaskarray(values).sum() == 13 * 3 + 1
    assert {"not yet run", "too few spikes"} <= set(legend_of(made))
    whole = legend_of(coherence_map(ei_map.isel(delay_ms=slice(1, 20))))
    assert "not yet run" not in whole and "too few spikes" not in whole


def test_a_map_without_any_result_is_drawn(ei_map: xr.Dataset) -> None:
    for name in ei_map:
        ei_map[name].values[:] = np.nan
    assert "not yet run" in legend_of(coherence_map(ei_map))


def test_an_infinite_R_has_the_brightest_colour(ei_map: xr.Dataset) -> None:
    largest = float(ei_map["R"].max())
    ei_map["R"].values[3, 3] = np.inf
    values = mesh_of(coherence_map(ei_map)).get_array()
    assert values is not None and values[3, 3] == pytest.approx(largest)


def test_dashed_lines_stand_where_the_law_puts_them(ei_map: xr.Dataset) -> None:
    law = law_of(Motif(kind="EI"))
    assert law
    made = coherence_map(ei_map)
    lines = [line for line in made.axes[0].lines if str(line.get_label()).startswith("order")]
    expected = resonances(law, 17.0, 49.75)
    assert len(lines) == len(expected) == 3
    for line, one in zip(lines, expected, strict=True):
        assert line.get_label() == f"order {one.order}"
        assert line.get_xdata() == pytest.approx(one.delay_ms)
        assert np.asarray(line.get_ydata()).tolist() == [1.0, 2.0, 3.5]
    assert "law: n T − 7.7 ms, T measured" in legend_of(made)
    (dots,) = (line for line in made.axes[0].lines if line.get_label() == "maxima")
    assert len(np.asarray(dots.get_xdata())) == 9


def test_the_law_is_drawn_for_the_synapse_it_was_fitted_to(ei_map: xr.Dataset) -> None:
    fast, slow = "inh_decay_per_ms = 1.0", "inh_decay_per_ms = 0.2"
    assert fast in ei_map.attrs["recipe"]
    ei_map.attrs["recipe"] = ei_map.attrs["recipe"].replace(fast, slow)
    assert [str(line.get_label()) for line in coherence_map(ei_map).axes[0].lines] == ["maxima"]


def test_one_row_and_one_column_are_maps_too(ei_map: xr.Dataset) -> None:
    row, column = ei_map.isel(g_mS_cm2=[2]), ei_map.isel(delay_ms=[4])
    for part in (row, column, row.isel(delay_ms=[4])):
        assert mesh_of(coherence_map(part)).get_array() is not None


def test_a_line_is_no_map(ii_line: xr.Dataset) -> None:
    with pytest.raises(ConfigError, match="two axes. Fix: "):
        coherence_map(ii_line)
