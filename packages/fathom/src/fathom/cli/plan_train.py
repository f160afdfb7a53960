"""`fathom plan train`: what a run takes on a cluster, before anyone rents it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from json import dumps
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fathom.config.recipe import Recipe
    from fathom.plan import Cluster, TrainPlan

SIZES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMBT]?)")
EXPLAINED = ("gpu_hours", "memory", "constants")


def train(
    recipe: Annotated[str, typer.Argument(metavar="PRESET|RECIPE", help="v3, or a recipe's name or path.")],
    cluster: Annotated[str, typer.Option(metavar="NAMExN|FILExN", help="A kind of device and how many.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings on top.")
    ] = None,
    tokens: Annotated[str, typer.Option(help="Tokens of the run, as 14.8T; default the recipe's.")] = "",
    recompute: Annotated[
        str, typer.Option(help="Done again in the backward: none, report (3.2.3), blocks.")
    ] = "report",
    explain: Annotated[
        str, typer.Option(metavar="WHAT", help="gpu_hours: the way to it; memory; constants: with sources.")
    ] = "",
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Also with one thing different at a time.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The figures as one JSON line.")] = False,
) -> None:
    """Price a training run: time, memory, traffic, money.

    \b
      fathom plan train v3 --cluster h800x2048 --tokens 14.8T
      fathom plan train v3 --cluster h800x2048 --tokens 14.8T --explain gpu_hours
      fathom plan train v3 --cluster h800x1024 --tokens 1T parallel.dp=1

    A preset is trained as the recipe v3 says. The guide tells how every number comes about; constants of a
    cluster carry their sources.
    """
    from fathom.config.errors import choose_from, need, plain
    from fathom.plan import load_cluster, plan_train

    for value, known, option in ((recompute, ("none", "report", "blocks"), "--recompute"),
                                 (explain or "gpu_hours", EXPLAINED, "--explain")):  # fmt: skip
        need(value in known, f"{option} {plain(value)} is unknown", fix=choose_from(value, known))
    machine = load_cluster(cluster)
    loaded = _recipe(recipe, machine, overrides or [])
    count = _count(tokens) if tokens else float(loaded.train.tokens or 0)
    need(count > 0, "the length of the run is not known", fix="give --tokens, as 14.8T")
    found = plan_train(loaded, machine, count, recompute)   # type: ignore[arg-type]
    if json:
        typer.echo(dumps(found.figures() | {"ladder": [one._asdict() for one in found.ladder]}))
        return
    _show(found)
    if explain:
        {"gpu_hours": _ladder, "memory": _memory, "constants": _constants}[explain](found)
    if sensitivity:
        _sensitivity(found, recompute)


def _recipe(name: str, cluster: Cluster, overrides: list[str]) -> Recipe:
    """A recipe; of a preset the recipe that is laid out for this cluster, or else v3's with its shape."""
    from fathom.config.load import RECIPES, load_recipe
    from fathom.config.presets import PRESETS, load_preset

    kind = f"x{cluster.name.lower()}"
    laid_out = [one for one in RECIPES if one.startswith(f"{name}-") and one.endswith(kind)]
    if laid_out:
        name = laid_out[0]
    elif name in PRESETS and name not in RECIPES:
        vocab = load_preset(name).vocab_size
        name, overrides = "v3", [f"model.preset={name}", f"data.vocab_size={vocab}", *overrides]
    return load_recipe(name, overrides).recipe


def _count(text: str) -> float:
    from fathom.config.errors import need, plain

    found = SIZE.fullmatch(text)
    need(found is not None, f"--tokens {plain(text)} is no number", fix="write it as 14.8T, 500B or 1000000")
    assert found
    return float(found[1]) * SIZES[found[2]]


def _show(found: TrainPlan) -> None:
    f, mesh, train = found.figures(), found.recipe.parallel, found.recipe.train
    capacity = found.cluster.memory_bytes / 2**30
    typer.echo(
        f"{f['model']} on {f['cluster']}, {f['precision']}; pp {mesh.pp} x dp {mesh.dp} x ep {mesh.ep}, "
        f"{mesh.schedule}, {f['micro_batches']} micro-batches of {train.micro_batch or 1}x{train.seq_len:,}\n"
        f"{_short(f['tokens'])} tokens: {f['gpu_hours']:,.0f} GPU-hours, {f['days']:,.1f} days, "
        f"${f['usd']:,.0f}, at most {f['mwh']:,.3g} MWh\n"
        f"{f['tokens_per_s_per_gpu']:,.0f} tokens/s a GPU, {_short(f['tokens_per_day'])} a day, "
        f"MFU {f['mfu']:.1%}; a step {f['step_s']:.3g} s, {f['bubble_share']:.1%} of it idle\n"
        f"{f['gflop_per_token']:,.4g} GFLOP a token, MTP {f['mtp_gflop_per_token']:,.3g} more; "
        f"{f['ib_bytes_per_token'] / 1e6:,.3g} MB a token between nodes\n"
        f"{f['memory_gib_per_gpu']:,.1f} of {capacity:,.1f} GiB a GPU{'' if f['fits'] else ': does not fit'}"
    )


def _short(count: float) -> str:
    unit = next((unit for unit in reversed(SIZES) if count >= SIZES[unit]), "")
    return f"{count / SIZES[unit]:.4g}{unit}"


def _ladder(found: TrainPlan) -> None:
    from fathom.plan.published import PUBLISHED

    cluster = found.cluster
    known = PUBLISHED.get((found.recipe.model.name, cluster.name, cluster.devices))
    typer.echo("\ntokens/s a GPU")
    if known:
        typer.echo(f"{known.steady:>9,.0f}  published steady state: {known.steady_source}")
    for one in found.ladder:
        typer.echo(f"{one.rate:>9,.0f}  {one.name}: {one.why}")
    hours = found.figures()["gpu_hours"]
    typer.echo(f"{found.rate:>9,.0f}  predicted: {hours:,.0f} GPU-hours for {_short(found.tokens)} tokens")
    if known:
        hours = found.tokens / known.run / 3600
        typer.echo(
            f"{known.run:>9,.0f}  published: {hours:,.0f} GPU-hours; {known.run_source}\n"
            f"{found.rate / known.run - 1:>+9.1%}  the gap. Rates are the trace's, so the first two lines "
            "agree by construction;\n           no line was fitted to the hours. Unknown: the cut into "
            "stages, the small batches\n           of the first steps, uneven experts, pauses"
        )


def _memory(found: TrainPlan) -> None:
    typer.echo("\nGiB a GPU, the fullest")
    for one in found.memory:
        typer.echo(f"{one.bytes / 2**30:>9.2f}  {one.name}: {one.formula}")


def _constants(found: TrainPlan) -> None:
    from fathom.plan.cluster import NUMBERS

    typer.echo()
    for place, source in found.cluster.sources.items():
        typer.echo(f"{place:32}{getattr(found.cluster, NUMBERS[place]):>12.6g}  {source}")


def _sensitivity(found: TrainPlan, recompute: str) -> None:
    """One thing at a time."""
    from fathom.config.errors import ConfigError
    from fathom.plan import plan_train

    cluster, recipe = found.cluster, found.recipe
    mesh, moe = recipe.parallel, recipe.model.moe
    slow = {name: getattr(cluster, name) / 2 for name in
            ("ib_bytes_per_s", "dispatch_bytes_per_s", "combine_bytes_per_s")}  # fmt: skip
    half_dp, half_pp, more = mesh.dp // 2, mesh.pp // 2, 2 * moe.num_experts
    cases: dict[str, Callable[[], tuple[Recipe, Cluster]]] = {
        "half the bandwidth between nodes": lambda: (recipe, replace(cluster, **slow)),
        "1F1B instead": lambda: (_with(recipe, schedule="1f1b"), cluster),
        "twice as many experts": lambda: (
            replace(recipe, model=replace(recipe.model, moe=replace(moe, num_experts=more))), cluster,
        ),
    }  # fmt: skip
    two_pp, two_dp = 2 * mesh.pp, 2 * mesh.dp
    if mesh.dp % 2 == 0:
        cases["twice as many pipeline ranks"] = lambda: (_with(recipe, pp=two_pp, dp=half_dp), cluster)
    if mesh.pp % 2 == 0:
        cases["half as many pipeline ranks"] = lambda: (_with(recipe, pp=half_pp, dp=two_dp), cluster)
    typer.echo(f"\n{'if there were':36}{'GPU-hours':>14}{'':>9}{'GiB a GPU':>11}")
    base = found.figures()
    for name, case in cases.items():
        try:
            other, machine = case()
            f = plan_train(other, machine, found.tokens, recompute).figures()   # type: ignore[arg-type]
        except ConfigError as error:
            typer.echo(f"{name:36}  {error}")
            continue
        change = f["gpu_hours"] / base["gpu_hours"] - 1
        fits = "" if f["fits"] else "  does not fit"
        typer.echo(f"{name:36}{f['gpu_hours']:>14,.0f}{change:>+9.1%}{f['memory_gib_per_gpu']:>11,.1f}{fits}")


def _with(recipe: Recipe, **mesh: Any) -> Recipe:
    return replace(recipe, parallel=replace(recipe.parallel, **mesh))
