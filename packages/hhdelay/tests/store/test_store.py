"""A store is written once, read whole, and says in one line what is wrong with it."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hhdelay.config.errors import ConfigError
from hhdelay.measure.tally import BINS
from hhdelay.store.layout import Coordinate, Layout, difference
from hhdelay.store.read import open_sweep
from hhdelay.store.schema import VARIABLES, partner
from hhdelay.store.tiles import Store, create, open_store

DECIDES = {"recipe": "[motif]\ndelay_ms = 9.0\n", "axes": "[]", "engine": "numba"}


def layout(**changes: Any) -> Layout:
    """5 by 3 points in tiles of 2 by 2, the last ones smaller."""
    axes = (Coordinate("delay_ms", (0.0, 1.0, 2.0, 3.0, 4.5), {"setting": "motif.delay_ms", "units": "ms"}),
            Coordinate("neurons", (2, 4, 8), {"setting": "motif.neurons", "units": "1"}))  # fmt: skip
    return Layout(coordinates=axes, tile=(2, 2), replicas=3, decides={**DECIDES, **changes})


def tile(store: Store, number: int) -> dict[str, np.ndarray]:
    """Values that tell the tile they are of."""
    region = store.layout.region(list(store.layout.blocks())[number])
    shape = tuple(one.stop - one.start for one in region)
    sizes = {"replica": 3, "bin": BINS}
    return {name: np.full((*shape, *(sizes[one] for one in variable.extra)), number, dtype=variable.dtype)
            for name, variable in VARIABLES.items()}  # fmt: skip


def full(path: Path) -> Store:
    store = create(path, layout())
    for number in range(6):
        store.write(number, tile(store, number))
    return store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full store, to copy."""
    return full(tmp_path_factory.mktemp("made") / "s").path


def test_tiles_are_rectangles_and_cover_the_grid() -> None:
    plan = layout()
    assert (plan.shape, plan.tiles, plan.tile_count) == ((5, 3), (3, 2), 6)
    seen = np.zeros(plan.shape, dtype=int)
    for block in plan.blocks():
        seen[plan.region(block)] += 1
    assert (seen == 1).all() and plan.region((2, 1)) == (slice(4, 5), slice(2, 3))


def test_what_is_written_is_read_and_what_is_missing_is_blank(tmp_path: Path) -> None:
    store = create(tmp_path / "s", layout())
    assert store.missing() == list(range(6))
    for number in (0, 5):
        store.write(number, tile(store, number))
    again = open_store(tmp_path / "s")
    assert again.missing() == [1, 2, 3, 4]
    assert again.layout == layout() and again.layout.identity == layout().identity
    data = open_sweep(tmp_path / "s")
    assert np.isfinite(data["R"].values).sum() == 5 and data["R"].values[4, 2] == 5.0
    assert data["histogram"].shape == (5, 3, BINS) and data["replica_R"].shape == (5, 3, 3)
    assert data["neurons"].dtype == np.int64 and data["delay_ms"].values[-1] == 4.5
    with pytest.raises(ConfigError, match="exists and is no store"):
        create(tmp_path / "s", layout())


def test_a_tile_that_was_cut_short_does_not_show(tmp_path: Path) -> None:
    store = full(tmp_path / "s")
    (tmp_path / "s/done/c/1/0").unlink()
    assert store.missing() == [2]
    data = open_sweep(tmp_path / "s")
    assert np.isnan(data["R"].values[2:4, 0:2]).all() and (data["spikes"].values[2:4, 0:2] == 0).all()
    assert np.isfinite(data["R"].values).sum() == 11


def test_two_processes_do_not_fill_one_store(tmp_path: Path) -> None:
    store = create(tmp_path / "s", layout())
    (tmp_path / "s/R/left.partial").write_bytes(b"")
    with store.writing():
        assert not (tmp_path / "s/R/left.partial").exists(), "of a process that was killed"
        other = open_store(store.path)
        with pytest.raises(ConfigError, match="another process is filling .*Fix: "), other.writing():
            pass
    with store.writing():
        pass


def break_file(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))


def test_a_damaged_or_lost_chunk_is_named_and_run_again(tmp_path: Path) -> None:
    store = full(tmp_path / "s")
    for chunk, mark, hurt, word in (("R/c/1/1", "done/c/1/1", break_file, "damaged"),
                                    ("histogram/c/2/1/0", "done/c/2/1", break_file, "damaged"),
                                    ("phase/c/0/0", "done/c/0/0", Path.unlink, "lost")):  # fmt: skip
        hurt(store.path / chunk)
        with pytest.raises(ConfigError, match=f"{chunk} is {word}. Fix: remove .*{mark}, then hhdelay"):
            open_sweep(store.path)
        (store.path / mark).unlink()
        (number,) = store.missing()
        store.write(number, tile(store, number))
        assert open_sweep(store.path)["R"].notnull().all()


@pytest.mark.parametrize(
    "file", ["zarr.json", "R/zarr.json", "delay_ms/zarr.json", "done/zarr.json", "delay_ms/c/0"]
)
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"attributes": {}}', b"\xff\xff", None])
def test_damaged_metadata_is_one_line(file: str, content: bytes | None, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "s")
    if content is None:
        (tmp_path / "s" / file).unlink()
    else:
        (tmp_path / "s" / file).write_bytes(content)
    with pytest.raises(ConfigError, match="Fix: ") as caught:
        open_sweep(tmp_path / "s")
    assert "\n" not in str(caught.value)


def test_a_changed_description_is_damage(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "s")
    table = tmp_path / "s/zarr.json"
    table.write_text(table.read_text().replace("delay_ms = 9.0", "delay_ms = 8.0"))
    with pytest.raises(ConfigError, match="is damaged .*Fix: "):
        open_store(tmp_path / "s")


def test_what_is_no_store_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/zarr.json").write_text('{"attributes": {}, "zarr_format": 3, "node_type": "group"}')
    for name, what in {"none": "no store", "file": "is no store", "folder": "is no store",
                       "other": "is a zarr group, but not a sweep"}.items():  # fmt: skip
        with pytest.raises(ConfigError, match=f"{what}.* Fix: "):
            open_store(tmp_path / name)
    full(tmp_path / "s")
    table = tmp_path / "s/zarr.json"
    held = json.loads(table.read_text())
    held["attributes"]["hhdelay_format"] = 99
    table.write_text(json.dumps(held))
    with pytest.raises(ConfigError, match="has format 99 of hhdelay .*Fix: use that version"):
        open_store(tmp_path / "s")


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/own").write_text("kept")
    for path in (*(tmp_path / one for one in ("file", "folder", "file/s", "none/s")), Path("/proc/s")):
        with pytest.raises(ConfigError, match="Fix: ") as caught:
            create(path, layout())
        assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == (tmp_path / "folder/own").read_text() == "kept"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "folder"]
    (tmp_path / "empty").mkdir()
    create(tmp_path / "empty", layout())


def test_a_read_only_store_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = create(tmp_path / "s", layout())
    monkeypatch.setattr("os.access", lambda *_: False)   # root may write whatever the bits say
    with pytest.raises(ConfigError, match="cannot write .*Fix: make the folder writable"), store.writing():
        pass


def test_a_full_disk_keeps_what_is_done(tmp_path: Path) -> None:
    """The limit on the size of files stands in for the disk."""
    store = create(tmp_path / "s", layout())
    store.write(0, tile(store, 0))
    code = ("import numpy as np, sys; from hhdelay.config.errors import ConfigError\n"
            "from pathlib import Path; from hhdelay.store.tiles import open_store, VARIABLES\n"
            "store = open_store(Path(sys.argv[1])); rng = np.random.default_rng(1)\n"
            "size = {'replica': 3, 'bin': 400}\n"
            "arrays = {n: rng.integers(0, 9e15, (2, 1, *(size[e] for e in v.extra))).astype(v.dtype)\n"
            "          for n, v in VARIABLES.items()}\n"
            "try: store.write(1, arrays)\n"
            "except ConfigError as error: print(error)\n")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.path)], capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout and "Fix: make room" in done.stdout
    assert done.stdout.count("\n") == 1
    assert store.missing() == [1, 2, 3, 4, 5] and open_sweep(store.path)["R"].values[0, 0] == 0.0


def test_two_stores_of_one_sweep_have_the_same_bytes(tmp_path: Path) -> None:
    one, other = full(tmp_path / "a").path, create(tmp_path / "b", layout())
    for number in reversed(range(6)):
        other.write(number, tile(other, number))
    shutil.copytree(one, tmp_path / "copy")
    for path in one.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (other.path / path.relative_to(one)).read_bytes()
    assert len(list(one.rglob("*"))) == len(list(other.path.rglob("*")))
    assert open_sweep(tmp_path / "copy").identical(open_sweep(one))


def test_what_differs_is_named() -> None:
    other = {**DECIDES, "recipe": "[motif]\ndelay_ms = 8.0\n", "axes": "[1]"}
    assert difference(DECIDES, other) == "motif.delay_ms is 9.0 there, 8.0 here; axes is [] there, [1] here"
    assert layout().identity != layout(engine="reference").identity
    other_store = Store(Path("s"), layout(engine="reference"), "0")
    with pytest.raises(ConfigError, match="another sweep: engine is reference there, numba here. Fix: "):
        other_store.check_same(layout())


def test_the_partner_is_the_first_of_the_other_population() -> None:
    assert [partner("EI", 10), partner("II", 2), partner("links", 5), partner("links", 1)] == [5, 1, 1, None]
