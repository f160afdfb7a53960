"""`hhdelay status`: how far a sweep is and what it has found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def status(
    store: Annotated[Path, typer.Argument(help="The folder that hhdelay sweep --out has made.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Print the grid of a sweep, how much of it is done, and where R is highest so far."""
    found = summary(store)
    typer.echo(json.dumps(found) if as_json else text(found))


def summary(path: Path) -> dict[str, Any]:
    """Plain numbers, null where there is nothing to say."""
    import numpy as np

    from hhdelay.store.read import open_sweep
    from hhdelay.store.tiles import open_store

    store = open_store(path)
    layout, data, missing = store.layout, open_sweep(path, only=("R", "persists")), set(store.missing())
    done = [layout.region(block) for k, block in enumerate(layout.blocks()) if k not in missing]
    R, persists = data["R"].values, data["persists"].values
    tested = np.isfinite(persists)
    found: dict[str, Any] = {
        "store": str(path),
        "axes": {
            one.name: {"setting": one.attrs["setting"], "points": len(one.values),
                       "first": one.values[0], "last": one.values[-1]}
            for one in layout.coordinates
        },
        "engine": layout.decides["engine"],
        "replicas": layout.replicas,
        "tiles": layout.tile_count,
        "tiles_done": len(done),
        "points": int(R.size),
        "points_done": int(sum(np.prod([one.stop - one.start for one in region]) for region in done)),
        "highest_R": None,
        "at": None,
        "persisting": float((persists[tested] >= 0.5).mean()) if tested.any() else None,
    }  # fmt: skip
    if np.isfinite(R).any():
        place = np.unravel_index(np.nanargmax(np.where(np.isinf(R), np.nan, R)), R.shape)
        found["highest_R"] = float(R[place])
        pairs = zip(layout.coordinates, place, strict=True)
        found["at"] = {one.name: _value(one, int(k)) for one, k in pairs}
    return found


def text(found: dict[str, Any]) -> str:
    """The summary for people."""
    axes = [f"{one['setting']} {one['points']} from {one['first']:g} to {one['last']:g}"
            for one in found["axes"].values()]  # fmt: skip
    R, persisting = found["highest_R"], found["persisting"]
    where = ", ".join(f"{name}={value}" for name, value in (found["at"] or {}).items())
    lines = [
        f"grid       {' by '.join(axes)}, {found['replicas']} replicas, engine {found['engine']}",
        f"done       {found['tiles_done']} of {found['tiles']} tiles, "
        f"{found['points_done']} of {found['points']} points",
        "highest R  -" if R is None else f"highest R  {R:.4g} at {where}",
    ]
    if persisting is not None:
        lines.append(f"persists   at {persisting:.0%} of the points half or more of the replicas fire on "
                     "when the noise stops")  # fmt: skip
    return "\n".join(lines)


def _value(coordinate: Any, place: int) -> Any:
    """The number of a place on an axis, or what its several settings are there."""
    if "points" in coordinate.attrs:
        return json.loads(coordinate.attrs["points"])[place]
    return coordinate.values[place]
