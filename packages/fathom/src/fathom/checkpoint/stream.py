"""Tensors spread over files of a bounded size, as in the official release, and the index that finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fathom.checkpoint.fp8_blocks import SCALE
from fathom.checkpoint.inventory import INDEX
from fathom.checkpoint.json_file import write_json
from fathom.checkpoint.tensors import Kind

SHARD_BYTES = 5_000_000_000  # of tensors in a file; transformers' own choice, and near the official 4.3 GB


class Shard(NamedTuple):
    """One file, and what it holds."""

    file: str
    kinds: dict[str, Kind]

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(kind.nbytes for kind in self.kinds.values())


def plan_shards(kinds: Mapping[str, Kind], shard_bytes: int = SHARD_BYTES) -> list[Shard]:
    """Fill files in the order of `kinds`; an FP8 weight and its scale share one.

    shard_bytes   most bytes of tensors in a file; a tensor above it has a file for itself
    """
    together: dict[str, dict[str, Kind]] = {}
    for name, kind in kinds.items():
        together.setdefault(name.removesuffix(SCALE), {})[name] = kind
    bundles: list[dict[str, Kind]] = []
    room = 0
    for group in together.values():
        needed = sum(kind.nbytes for kind in group.values())
        if needed > room:
            bundles.append({})
            room = shard_bytes
        bundles[-1].update(group)
        room -= needed
    return [
        Shard(f"model-{i:05d}-of-{len(bundles):06d}.safetensors", bundle)
        for i, bundle in enumerate(bundles, 1)
    ]


def write_index(folder: Path, shards: Sequence[Shard]) -> None:
    """Write the file that says which tensor is where."""
    places = {name: shard.file for shard in shards for name in shard.kinds}
    total = sum(shard.nbytes for shard in shards)
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
