"""Voltages, spikes, intervals and rates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hhdelay.config.errors import ConfigError
from hhdelay.measure.tally import BIN_MS
from hhdelay.plot.firing import FOLD_uA_cm2, HOPF_uA_cm2, rate_curve, rate_figure
from hhdelay.plot.run import histogram, raster, raster_and_histogram, voltage
from hhdelay.plot.saved import SavedRun, read_run


def test_voltage_and_gates(run: SavedRun) -> None:
    short, whole = voltage(run), voltage(run, gates=True)
    assert [axes.get_ylabel() for axes in short.axes] == ["voltage V (mV)", "synapse\ns (1)"]
    assert [axes.get_ylabel() for axes in whole.axes[1:]] == ["gates of\nneuron 0 (1)", "synapse\ns (1)"]
    assert whole.axes[-1].get_xlabel() == "time t (ms)"
    assert [len(axes.lines) for axes in whole.axes] == [2, 3, 2]
    np.testing.assert_array_equal(np.asarray(short.axes[0].lines[1].get_ydata()), run.trace["V_mV"][:, 1])
    names = [text.get_text() for text in whole.legends[0].get_texts()]
    assert names == ["excitatory", "inhibitory", "m", "h", "n"]
    with pytest.raises(ConfigError, match="no trace. Fix: "):
        voltage(replace(run, trace={}))


def test_raster_shows_the_spikes_of_replica_0(run: SavedRun) -> None:
    axes = raster(run, duration_ms=300.0).axes[0]
    assert axes.get_xlabel() == "time t (ms)" and axes.get_xlim() == (100.0, 400.0)
    drawn = [len(one.get_positions()) for one in axes.collections]  # type: ignore[attr-defined]
    first = (run.spike_replica == 0) & (run.spikes_ms <= 400.0)
    assert drawn == [int((first & (run.spike_neuron == j)).sum()) for j in (0, 1)]


@pytest.mark.parametrize("log", [False, True])
def test_histogram_marks_the_mean(run: SavedRun, log: bool) -> None:
    axes = histogram(run, log=log).axes[0]
    assert axes.get_xlabel() == "inter-spike interval (ms)"
    assert axes.get_ylabel() == f"intervals per {BIN_MS:g} ms"
    steps = axes.patches[0].get_data()  # type: ignore[attr-defined]
    assert steps.values.sum() == run.tally.intervals[:, 0].sum()
    assert (axes.get_yscale() == "log") == log
    mean = run.tally.mean_ms[:, 0] @ run.tally.intervals[:, 0] / run.tally.intervals[:, 0].sum()
    assert axes.lines[0].get_xdata() == pytest.approx([mean, mean])
    assert str(axes.lines[0].get_label()).startswith(f"mean {mean:.4g} ms, R = ")


def test_multiples_of_the_commonest_interval_are_marked(run: SavedRun) -> None:
    counts = np.zeros_like(run.tally.histogram)
    counts[0, 0, [33, 34, 35]] = 30, 40, 20
    counts[0, 0, [68, 69, 399]] = 8, 2, 1
    axes = histogram(replace(run, tally=run.tally._replace(histogram=counts))).axes[0]
    marked = [float(np.asarray(line.get_xdata())[0]) for line in axes.lines[1:]]
    assert marked == pytest.approx([k * 17.25 for k in (2, 3, 4, 5)])
    assert [text.get_text() for text in axes.texts] == ["last bin: 199.5 ms and more"]
    none = run.tally._replace(histogram=np.zeros_like(counts))
    with pytest.raises(ConfigError, match="no interval. Fix: "):
        histogram(replace(run, tally=none))


def test_both_in_one(run: SavedRun) -> None:
    labels = [axes.get_ylabel() for axes in raster_and_histogram(run).axes]
    assert labels == ["neuron", "intervals per 0.5 ms"]


def test_a_file_that_is_no_run_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no zip")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "objects.npz", recipe=np.array([{}], dtype=object))
    np.savez(tmp_path / "toml.npz", recipe=np.array("= 3"))
    for path in (*tmp_path.iterdir(), tmp_path / "missing.npz", tmp_path):
        with pytest.raises(ConfigError, match="Fix: give the .npz of hhdelay simulate") as caught:
            read_run(path)
        assert "\n" not in str(caught.value)


def test_rates_are_the_known_ones_on_both_branches() -> None:
    """Firing ends at the fold, 6.264, and rest at the Hopf point, 9.779; 7 and 10: 58.31 and 68.31 Hz."""
    curve = rate_curve(currents=np.array([5.0, 6.0, 6.5, 7.0, 8.0, 9.5, 10.0, 11.0]))
    assert curve.down_Hz[:2].tolist() == [0.0, 0.0] and (curve.down_Hz[2:] > 50).all()
    assert curve.up_Hz[:6].tolist() == [0.0] * 6 and (curve.up_Hz[6:] > 60).all()
    assert curve.down_Hz[[2, 3]] == pytest.approx([55.02, 58.31], rel=2e-3)
    assert curve.up_Hz[6] == pytest.approx(68.31, rel=2e-3)
    axes = rate_figure(curve).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("bias current I (µA/cm²)", "firing rate (Hz)")
    upright = [float(np.asarray(line.get_xdata())[0]) for line in axes.lines[:2]]
    assert upright == [FOLD_uA_cm2, HOPF_uA_cm2]
    assert len(axes.lines) == 4
