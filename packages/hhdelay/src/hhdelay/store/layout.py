"""What a store is made for: its grid, its tiles, and the text that decides every number in it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from math import ceil, prod
from typing import Any, NamedTuple

FORMAT = 1  # of the files; raised when an older program could not read them


class Coordinate(NamedTuple):
    """One axis: the dimension's name, a number for each point, units and meaning."""

    name: str
    values: tuple[float, ...]
    attrs: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The plan of a store. Tiles are numbered row by row; those at the upper ends may be smaller.

    decides     named texts that determine the results to the bit; their digest is the store's identity
    """

    coordinates: tuple[Coordinate, ...]
    tile: tuple[int, ...]
    replicas: int
    decides: Mapping[str, str]

    @property
    def shape(self) -> tuple[int, ...]:
        """Points along each axis."""
        return tuple(len(one.values) for one in self.coordinates)

    @property
    def tiles(self) -> tuple[int, ...]:
        """Tiles along each axis."""
        return tuple(ceil(n / t) for n, t in zip(self.shape, self.tile, strict=True))

    @property
    def tile_count(self) -> int:
        """Tiles altogether."""
        return prod(self.tiles)

    def blocks(self) -> Iterator[tuple[int, ...]]:
        """The place of each tile among the tiles, in the order of their numbers."""
        return product(*map(range, self.tiles))

    def region(self, block: tuple[int, ...]) -> tuple[slice, ...]:
        """The points of a tile."""
        sizes = zip(block, self.tile, self.shape, strict=True)
        return tuple(slice(k * t, min((k + 1) * t, n)) for k, t, n in sizes)

    @property
    def identity(self) -> str:
        """SHA-256 of `decides` and FORMAT, as hexadecimal digits."""
        return identity(self.decides)


def identity(decides: Mapping[str, str]) -> str:
    """The digest of the texts that decide the numbers."""
    text = json.dumps({**decides, "format": str(FORMAT)}, sort_keys=True)
    return sha256(text.encode()).hexdigest()


def difference(held: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """What tells two sweeps apart, in a few words: "motif.g_mS_cm2 is 2.0 there, 3.0 here"."""
    found = []
    for name in wanted:
        if held.get(name) == wanted[name]:
            continue
        if name == "recipe":
            there, here = (_settings(one.get(name, "")) for one in (held, wanted))
            found += [f"{key} is {there.get(key)} there, {here[key]} here"
                      for key in here if there.get(key) != here[key]]  # fmt: skip
        elif len(held.get(name, "") + wanted[name]) < 40:
            found.append(f"{name} is {held.get(name)} there, {wanted[name]} here")
        else:
            found.append(f"the {name} differ")
    return "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")


def _settings(recipe_toml: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(recipe_toml)
    except tomllib.TOMLDecodeError:
        return {}
    return {f"{table}.{key}": value for table, held in tables.items() for key, value in held.items()}
