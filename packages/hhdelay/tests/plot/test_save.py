"""Files: of the kind that was asked for, the same every time, whole or not there; and labels with units."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

from hhdelay.config.errors import ConfigError
from hhdelay.config.schema import leaves
from hhdelay.plot.lines import coherence_lines
from hhdelay.plot.map import coherence_map
from hhdelay.plot.save import SUFFIXES, save
from hhdelay.plot.style import figure, label_of, nice_values, value_of

MAGIC = {".png": b"\x89PNG\r\n\x1a\n", ".svg": b"<?xml", ".pdf": b"%PDF-"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_figure_gives_the_same_bytes_twice(suffix: str, ei_map: xr.Dataset, tmp_path: Path) -> None:
    files = [tmp_path / f"{k}{suffix}" for k in (1, 2)]
    for file in files:
        save(coherence_map(ei_map, width_in=3.4), file)
    one, other = (file.read_bytes() for file in files)
    assert one == other and one.startswith(MAGIC[suffix])
    assert sorted(tmp_path.iterdir()) == files, "no part of a file is left"


def test_a_picture_is_fine_enough_to_print(ii_line: xr.Dataset, tmp_path: Path) -> None:
    from matplotlib.image import imread

    save(coherence_lines(ii_line, width_in=3.4), tmp_path / "a.png")
    assert imread(tmp_path / "a.png").shape[1] == 3.4 * 300


def test_figures_are_drawn_in_threads(ii_line: xr.Dataset, tmp_path: Path) -> None:
    before = dict(mpl.rcParams)

    def draw(k: int) -> bytes:
        save(coherence_lines(ii_line, width_in=3.4), tmp_path / f"{k}.svg")
        return (tmp_path / f"{k}.svg").read_bytes()

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(draw, range(3)))) == 1
    assert dict(mpl.rcParams) == before


def test_other_kinds_and_other_places_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "a.jpg", tmp_path / "a", tmp_path / "no" / "a.png", tmp_path / "folder.png"):
        with pytest.raises(ConfigError, match="Fix: ") as caught:
            save(figure(2.0, 2.0), path)
        assert "\n" not in str(caught.value)


def test_an_older_file_stays_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"older")
    made = figure(2.0, 2.0)

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(made, "savefig", full)
    with pytest.raises(ConfigError, match="No space left on device.*Fix: "):
        save(made, tmp_path / "a.png")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"older")]


def test_every_setting_has_a_label_with_its_unit() -> None:
    assert label_of("synapse.inh_decay_per_ms") == "inh decay (1/ms)"
    assert label_of("neuron.E_leak_mV") == "E leak (mV)"
    assert label_of("motif.neurons") == "neurons N" and label_of("neuron.rate_factor") == "rate factor"
    for name in leaves():
        unit = name.rpartition("_")[2] in ("ms", "mV", "cm2", "cm4")
        assert ("(" in label_of(name)) == unit, name
    assert value_of("motif.g_mS_cm2", 2.0).replace("\u00a0", " ") == "g = 2 mS/cm²"


def test_ticks_are_round_numbers() -> None:
    assert nice_values(1.0, 30.0) == [1, 2, 5, 10, 20]
    assert len(nice_values(4.1, 6.2)) >= 2 and len(nice_values(4.1, 4.6)) >= 3
    for low, high in ((np.nan, 1.0), (0.0, 1.0), (2.0, 2.0), (3.0, 1.0)):
        assert nice_values(low, high) == []
