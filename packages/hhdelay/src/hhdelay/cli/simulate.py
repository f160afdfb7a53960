"""`hhdelay simulate`: one recipe, all its replicas, in numbers."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hhdelay.config.recipe import Recipe
    from hhdelay.simulate import Outcome


def simulate(
    recipe: Annotated[str, typer.Argument(help="A packaged recipe's name, or the path of a .toml file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings on top, as motif.delay_ms=18.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write spikes, counts, recipe to this .npz.")] = None,
    trace_ms: Annotated[float, typer.Option(min=0, help="With --out: V, gates, s of replica 0.")] = 0.0,
    engine: Annotated[str, typer.Option(help="simd; numba, faster below four replicas; reference.")] = "simd",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Run a network and print how often and how regularly it fires, and in which phase."""
    from hhdelay.config.errors import need
    from hhdelay.config.load import load_recipe
    from hhdelay.engines import engine as by_name
    from hhdelay.simulate import simulate as run

    loaded, using = load_recipe(recipe, overrides or ()), by_name(engine)
    if out:
        _check_writable(out)
    need(out is not None or trace_ms == 0.0, f"--trace-ms {trace_ms:g} has nowhere to be written",
         fix="give --out FILE.npz")  # fmt: skip
    outcome = run(loaded, using=using, keep_spikes=out is not None, progress=_progress())
    if out:
        _save(out, loaded, outcome, trace_ms)
    summary = _summary(loaded, outcome)
    typer.echo(json.dumps(summary) if as_json else _text(loaded, summary))


def _progress() -> Any:
    """A line that a terminal overwrites; nothing where stderr is a file."""
    if not sys.stderr.isatty():
        return None

    def tell(done: float) -> None:
        print(f"\r{done:4.0%}" if done < 1.0 else "\r    \r", end="", file=sys.stderr, flush=True)

    return tell


def _summary(recipe: Recipe, outcome: Outcome) -> dict[str, Any]:
    """Plain numbers, null where there is nothing to say; `neurons` are those that R is of."""
    from dataclasses import fields

    from hhdelay.measure import coherence
    from hhdelay.network import observed

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(one) for one in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    found, run = outcome.coherence, recipe.simulation
    each = [coherence(outcome.tally, run.duration_steps * run.dt_ms, run.replicas, [j])
            for j in range(recipe.motif.neurons)]  # fmt: skip
    alone = [{x: plain(getattr(one, x)[0].tolist()) for x in ("rate_Hz", "mean_ms", "R")} for one in each]
    summary = {f.name: plain(getattr(found, f.name)[0].tolist()) for f in fields(found)}
    return {"neurons": list(observed(recipe.motif)), **summary, "each": alone}


def _text(recipe: Recipe, found: dict[str, Any]) -> str:
    def number(value: Any, form: str = ".4g") -> str:
        return "-" if value is None else format(value, form)

    run, of = recipe.simulation, len(found["neurons"])
    whose = "" if of == recipe.motif.neurons else " of the excitatory population"
    ends = [found["R_low"], found["R_high"]]
    confidence = "" if None in ends else f"   95 % {ends[0]:.4g} to {ends[1]:.4g}, of {run.replicas} replicas"
    lines = [
        f"rate       {number(found['rate_Hz'])} Hz a neuron{whose}, {found['spikes']} spikes in "
        f"{run.replicas} x {run.duration_ms / 1e3:g} s",
        f"interval   {number(found['mean_ms'])} ms, sd {number(found['sd_ms'])}, "
        f"{number(found['shortest_ms'])} to {number(found['longest_ms'])}",
        f"R          {number(found['R'])}{confidence}",
        f"skipped    {number(found['skipped'])} cycles an interval",
    ]
    if whose:
        lines += [f"others     {number(one['rate_Hz'])} Hz, R {number(one['R'])}, neuron {j}"
                  for j, one in enumerate(found["each"]) if j not in found["neurons"]]  # fmt: skip
    pairs = zip(found["phase"], found["locking"], strict=True)
    lines += [f"phase      {number(p, '.3f')} of neuron {j} behind neuron 0, |z| {number(z, '.3f')}"
              for j, (p, z) in enumerate(pairs, 1)]  # fmt: skip
    return "\n".join(lines)


def _check_writable(out: Path) -> None:
    """Before the work, not after it."""
    import os

    from hhdelay.config.errors import need

    folder = out.parent
    need(out.suffix == ".npz", f"--out {out} is no .npz file", fix=f"write --out {out.with_suffix('.npz')}")
    need(folder.is_dir() and os.access(folder, os.W_OK) and not out.is_dir(),
         f"cannot write {out}", fix="give a file in a folder that you may write to")  # fmt: skip


def _save(out: Path, recipe: Recipe, outcome: Outcome, trace_ms: float) -> None:
    """recipe (TOML), spikes_ms with spike_replica and spike_neuron, the tally's fields, the trace."""
    import numpy as np

    from hhdelay.config.errors import ConfigError
    from hhdelay.config.load import to_toml
    from hhdelay.simulate import trace

    each = [(r, j, times) for r, row in enumerate(outcome.spikes) for j, times in enumerate(row)]
    arrays: dict[str, Any] = {
        "recipe": np.array(to_toml(recipe)),
        "spikes_ms": np.concatenate([times for _, _, times in each]),
        "spike_replica": np.concatenate([np.full(len(times), r) for r, _, times in each]),
        "spike_neuron": np.concatenate([np.full(len(times), j) for _, j, times in each]),
    }
    arrays |= {f"tally_{name}": field for name, field in outcome.tally._asdict().items()}
    if trace_ms:
        arrays |= {f"trace_{name}": field for name, field in trace(recipe, trace_ms).items()}
    part = out.with_name(f".{out.stem}.part.npz")
    try:
        np.savez_compressed(part, **arrays)
        part.replace(out)   # an older file stays whole until the new one is
    except OSError as error:
        why = error.strerror or str(error)
        fix = "give a file in a folder that you may write to"
        raise ConfigError(f"cannot write {out} ({why}). Fix: {fix}") from None
