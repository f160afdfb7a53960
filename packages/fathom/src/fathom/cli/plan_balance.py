"""`fathom plan balance`: which devices should hold which experts, of the loads that a run had."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fathom.cli.written import write_whole

if TYPE_CHECKING:
    from fathom.placement import Layout, Placement
    from fathom.placement.layout import Loads


def balance(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, also a going one.")],
    devices: Annotated[int, typer.Option(min=1, help="Devices that share the experts of a layer.")],
    slots: Annotated[
        int | None, typer.Option(min=1, help="Experts held, copies counted; default one spare a device.")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes that the devices are in.")] = 1,
    groups: Annotated[
        int | None, typer.Option(min=1, help="Expert groups; default those of the run's router.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The figures as one JSON line.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the placement as JSON.")
    ] = None,
) -> None:
    """Put the experts of a run on devices so that all have as much to do, the busiest ones twice.

    \b
      fathom plan balance runs/tiny --devices 4
      fathom plan balance runs/tiny --devices 8 --nodes 2 --slots 32 --out placement.json

    The placement is made of the loads of the run's third quarter and judged by those of its last one,
    which it has not seen: that is how a server would use it. Where the run has written too few lines,
    both are all there is.
    """
    from fathom.config.errors import need, plain
    from fathom.placement import Layout, in_order, place
    from fathom.report.loads import layer_labels
    from fathom.report.run import read_runs

    one = read_runs([run])[0]
    need(one.loads is not None, f"{plain(str(run))} has no loads of experts",
         fix="give a run of a network with experts; `fathom train` writes loads.jsonl")  # fmt: skip
    assert one.loads is not None
    E = one.loads.shape[1]
    layout = Layout(slots=slots or -(-E // devices) * devices + devices, devices=devices, nodes=nodes,
                    groups=groups or one.whole("model.moe.num_groups") or 1)  # fmt: skip
    seen, later = _halves(one.loads.counts, one.loads.shape)
    found = place(seen, layout)
    alone = in_order(seen.shape, layout) if E % devices == 0 else None
    labels = layer_labels(len(seen), one.whole("model.dense_layers"), one.whole("model.num_layers"))
    if out:
        write_whole(out, (dumps(_placement(found)) + "\n").encode())
    figures = _figures(found, alone, seen, later)
    if json:
        typer.echo(dumps(_head(layout, E) | {"layers": labels} | figures))
    else:
        _show(layout, E, labels, figures)


def _halves(columns: list[Any], shape: tuple[int, int]) -> tuple[Loads, Loads]:
    """Sums over the third quarter of the columns and over the last, [L, E] both."""
    import numpy as np

    all_ = np.array(columns, dtype=np.float64).reshape(-1, *shape)
    quarter = len(all_) // 4
    if quarter == 0:
        return all_.sum(axis=0), all_.sum(axis=0)
    return all_[-2 * quarter : -quarter].sum(axis=0), all_[-quarter:].sum(axis=0)


def _figures(found: Placement, alone: Placement | None, seen: Loads, later: Loads) -> dict[str, Any]:
    """The fullest device over the mean, layer by layer."""
    rows = {"placed": found.imbalance(seen), "placed_later": found.imbalance(later)}
    if alone:
        rows["in_order_later"] = alone.imbalance(later)
    return {name: [round(float(v), 4) for v in row] for name, row in rows.items()}


def _placement(found: Placement) -> dict[str, Any]:
    """What a server needs, slots counted device by device."""
    return {
        "devices": found.devices,
        "expert_of_slot": found.expert_LR.tolist(),
        "slots_of_expert": found.slots_LEK.tolist(),
        "copies": found.copies_LE.tolist(),
    }


def _head(layout: Layout, experts: int) -> dict[str, Any]:
    from dataclasses import asdict

    return {"experts": experts} | asdict(layout)


def _show(layout: Layout, experts: int, labels: list[str], figures: dict[str, list[float]]) -> None:
    where = f"{layout.slots} slots on {layout.devices} devices, {layout.nodes} nodes"
    torn = "" if layout.groups % layout.nodes == 0 else f"; {layout.groups} groups cannot stay on a node each"
    typer.echo(f"{experts} experts in {where}{torn}\nthe fullest device's tokens over the mean; 1 is even")
    names = {"in_order_later": "in order", "placed_later": "placed", "placed": "placed, on its own loads"}
    shown = {title: figures[name] for name, title in names.items() if name in figures}
    typer.echo(f"{'':14}" + "".join(f"{title:>{_room(title)}}" for title in shown))
    for k, label in enumerate([*labels, "mean"]):
        of_row = (row[k] if k < len(labels) else sum(row) / len(row) for row in shown.values())
        cells = zip(shown, of_row, strict=True)
        typer.echo(f"{label:14}" + "".join(f"{v:>{_room(title)}.3f}" for title, v in cells))


def _room(title: str) -> int:
    return max(10, len(title) + 2)
