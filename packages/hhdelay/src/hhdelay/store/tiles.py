"""A store on disk, filled tile by tile.

A folder in the zarr format, version 3: a group with an array for each variable of the schema, cut into chunks
that are the tiles, and the coordinates. All metadata is written when the store is made; then each chunk is
written once, to another name first. The array `done` has a chunk a tile, written last: what it does not
mark is run again. There is no date in the files, so two runs of one sweep have the same bytes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from hhdelay import __version__
from hhdelay.config.errors import ConfigError, need, plain, quoted
from hhdelay.measure.tally import BINS
from hhdelay.store.layout import FORMAT, Coordinate, Layout, difference, identity
from hhdelay.store.schema import VARIABLES

DONE = "done"
TABLE = "zarr.json"     # the metadata of a group or array in the zarr format 3
EVERY_CHUNK = {"array.write_empty_chunks": True}    # so that a lost one can be told from an empty one
DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError)


class Store:
    """An open store. Reading needs no more than the folder; `write` needs the lock of `writing`."""

    def __init__(self, path: Path, layout: Layout, version: str) -> None:
        self.path, self.layout, self.version = path, layout, version
        self._arrays: dict[str, zarr.Array[Any]] = {}   # open for writing

    def missing(self) -> list[int]:
        """Numbers of the tiles that are not marked done."""
        done = np.asarray(self.array(DONE)[:])
        return [k for k, one in enumerate(done.reshape(-1)) if not one]

    def write(self, number: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write a tile, name -> [*tile, *extra], then mark it done; ConfigError where the disk fails."""
        block = list(self.layout.blocks())[number]
        with _disk(self.path):
            for name, variable in VARIABLES.items():
                place = (*block, *(0 for _ in variable.extra))
                self._for_writing(name).set_block_selection(place, arrays[name])
            self._for_writing(DONE).set_block_selection(block, np.ones((1,) * len(block), dtype=np.uint8))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store for this process; ConfigError where another holds it. A dead one's leavings go."""
        with _disk(self.path):
            need(os.access(self.path, os.W_OK), f"cannot write {plain(str(self.path))}",
                 fix="make the folder writable, or copy it to one that is")  # fmt: skip
            held = os.open(self.path / TABLE, os.O_RDONLY)
        try:
            _lock(held, self.path)
            with _disk(self.path):
                for part in self.path.rglob("*.partial"):
                    part.unlink(missing_ok=True)
            yield
        finally:
            os.close(held)

    def check_same(self, layout: Layout) -> None:
        """ConfigError that names what differs, unless the store is for the same sweep; tiles may differ."""
        other = difference(self.layout.decides, layout.decides)
        need(self.layout.identity == layout.identity,
             f"{plain(str(self.path))} holds another sweep: {other}",
             fix="give another --out, or the settings that it was made with")  # fmt: skip

    def array(self, name: str, mode: Any = "r") -> zarr.Array[Any]:
        """One array by name; ConfigError where its metadata is damaged or lost."""
        try:
            with zarr.config.set(EVERY_CHUNK):
                return zarr.open_array(self.path, path=name, mode=mode, zarr_format=3)
        except (*DAMAGE, FileNotFoundError) as error:
            raise damaged(self.path, f"{name}/{TABLE}", error) from None

    def _for_writing(self, name: str) -> zarr.Array[Any]:
        if name not in self._arrays:
            self._arrays[name] = self.array(name, "r+")
        return self._arrays[name]


def create(path: Path, layout: Layout) -> Store:
    """A new store with no tile done. It appears at `path` whole or not at all.

    raises      ConfigError where `path` exists, where its folder does not, and where it cannot be written
    """
    label = plain(str(path))
    need(path.parent.is_dir(), f"cannot write {label}: there is no folder {plain(str(path.parent))}",
         fix="make that folder, or give another place")  # fmt: skip
    need(not path.is_symlink() and (not path.exists() or (path.is_dir() and not any(path.iterdir()))),
         f"{label} exists and is no store of hhdelay", fix="give a name that is free")  # fmt: skip
    part = path.with_name(f".{path.name}.part")
    with _disk(path):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            _fill(part, layout)
            part.rename(path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    return Store(path, layout, __version__)


def open_store(path: Path) -> Store:
    """The store at `path`; ConfigError where there is none, or a damaged or newer one."""
    label = plain(str(path))
    need(path.exists(), f"no store {label}", fix="make one with hhdelay sweep RECIPE --out STORE")
    need(path.is_dir() and (path / TABLE).is_file(), f"{label} is no store of hhdelay",
         fix="give the folder that hhdelay sweep --out has made")  # fmt: skip
    try:
        attrs = json.loads((path / TABLE).read_bytes())["attributes"]
        held = attrs.get("hhdelay_format")
    except OSError as error:
        raise _unusable(path, error) from None
    except DAMAGE as error:
        raise damaged(path, TABLE, error) from None
    need(held is not None, f"{label} is a zarr group, but not a sweep of hhdelay",
         fix="give the folder that hhdelay sweep --out has made")  # fmt: skip
    need(held == FORMAT, f"{label} has format {quoted(held)} of hhdelay {quoted(attrs.get('version'))}",
         fix=f"use that version; this one, {__version__}, reads format {FORMAT}")  # fmt: skip
    try:
        decides = {name: str(attrs[name]) for name in json.loads(attrs["decides"])}
        if attrs["identity"] != identity(decides):
            raise ValueError("identity")
        layout = Layout(
            coordinates=tuple(_coordinate(path, name) for name in json.loads(attrs["dimensions"])),
            tile=tuple(int(n) for n in json.loads(attrs["tile"])),
            replicas=int(attrs["replicas"]),
            decides=decides,
        )
        return Store(path, layout, str(attrs["version"]))
    except DAMAGE as error:
        raise damaged(path, TABLE, error) from None


def damaged(path: Path, file: str, error: BaseException) -> ConfigError:
    """What to say of metadata that cannot be read."""
    what = f"{plain(str(path / file))} is damaged ({error.__class__.__name__})"
    return ConfigError(f"{what}. Fix: take the file from a backup, or run the sweep again in a new store")


def _fill(path: Path, layout: Layout) -> None:
    """All metadata and the coordinates; chunks without values are not written."""
    attributes = {
        "hhdelay_format": FORMAT,
        "version": __version__,
        "identity": layout.identity,
        "decides": json.dumps(list(layout.decides)),
        **layout.decides,
        "dimensions": json.dumps([one.name for one in layout.coordinates]),
        "tile": json.dumps(layout.tile),
        "replicas": layout.replicas,
    }
    group = zarr.create_group(path, zarr_format=3, attributes=attributes)
    for name, values, attrs in layout.coordinates:
        whole = all(isinstance(one, int) for one in values)
        values_X = np.array(values, dtype=np.int64 if whole else np.float64)
        array = group.create_array(
            name, shape=values_X.shape, chunks=values_X.shape, dtype=values_X.dtype, fill_value=None,
            dimension_names=(name,), compressors=_codecs(), attributes=dict(attrs),
        )  # fmt: skip
        with zarr.config.set(EVERY_CHUNK):
            zarr.open_array(path, path=array.path, mode="r+")[:] = values_X
    extra = {"replica": layout.replicas, "bin": BINS}
    for name, variable in VARIABLES.items():
        sizes = tuple(extra[one] for one in variable.extra)
        group.create_array(
            name, shape=(*layout.shape, *sizes), chunks=(*layout.tile, *sizes), dtype=variable.dtype,
            fill_value=np.nan if variable.dtype == "float64" else 0, compressors=_codecs(),
            dimension_names=(*(one.name for one in layout.coordinates), *variable.extra),
            attributes={"units": variable.units, "long_name": variable.meaning},
        )  # fmt: skip
    group.create_array(
        DONE, shape=layout.tiles, chunks=(1,) * len(layout.tiles), dtype="uint8", fill_value=0,
        dimension_names=tuple(f"tile_{one.name}" for one in layout.coordinates), compressors=None,
        attributes={"long_name": "1 where all variables of a tile are written"},
    )  # fmt: skip


def _codecs() -> list[Any]:
    """Compressed, with a checksum: a flipped bit is an error, not another number."""
    return [ZstdCodec(level=3), Crc32cCodec()]


def _coordinate(path: Path, name: str) -> Coordinate:
    array = zarr.open_array(path, path=name, mode="r", zarr_format=3)
    if not (path / name / "c/0").is_file():     # zarr would read zeros
        raise ValueError(f"no values of {name}")
    attrs = {str(key): str(value) for key, value in array.attrs.items()}
    return Coordinate(name, tuple(np.asarray(array[:]).tolist()), attrs)


def _lock(held: int, path: Path) -> None:
    """The lock falls with the process, however it ends. Where the system has none, none is held."""
    with suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = "wait until it has ended, or stop it"
            raise ConfigError(f"another process is filling {plain(str(path))}. Fix: {fix}") from None
        except OSError:
            return  # a network folder without locks


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """What the disk refuses, in one line."""
    try:
        yield
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: OSError) -> ConfigError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    fix = "make room, then hhdelay resume it" if full else "give a folder that you may read and write"
    why = error.strerror or error.__class__.__name__
    return ConfigError(f"cannot use {plain(str(path))} ({why}). Fix: {fix}")
