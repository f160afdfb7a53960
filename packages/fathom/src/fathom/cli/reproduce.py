"""`fathom reproduce`: claims of the report, each a command that measures it here."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fathom.config.errors import need
from fathom.config.folder import check_folder

if TYPE_CHECKING:
    from fathom.reproduce.fp8_figures import Figures

app = typer.Typer(no_args_is_help=True, help="Claims of the report, measured here.")
DIVERGED = "diverged"


@app.callback()
def reproduce() -> None:
    """Claims of the report, measured here."""


@app.command()
def fp8(
    out: Annotated[Path | None, typer.Option("--out", help="Folder; default runs/fp8[-quick].")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Minutes, to see it work; judges nothing.")] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", help="Runs at a time; default one per core.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The closing figures as the last line.")] = False,
) -> None:
    """The loss of FP8 training stays within 0.25 % of bf16's (report, section 3.3).

    \b
      fathom reproduce fp8 --quick
      fathom reproduce fp8 --out runs/fp8 --json

    Trains a small network on two million tokens, with three seeds, in bf16 and in FP8 on the same data; once
    more in bf16 with sums in another order, which is the noise floor; and once with gradients in blocks, as
    appendix B.2 warns. Run again with the same --out, it goes on where it was stopped.
    """
    need(jobs is None or jobs >= 1, f"--jobs {jobs} is below 1", fix="give 1 or more, or leave it away")
    folder = out or Path("runs") / ("fp8-quick" if quick else "fp8")
    check_folder(folder)
    from fathom.reproduce.fp8 import run

    figures = run(folder, quick=quick, jobs=jobs or 0, cores=_cores())
    show(figures, to_stderr=as_json)
    if as_json:
        print(json.dumps(asdict(figures), allow_nan=False))


def show(figures: Figures, *, to_stderr: bool) -> None:
    """The closing page: a table, what was trained, and the verdict as the last line."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=to_stderr, highlight=False)
    table = Table(
        title="relative error of the smoothed loss, last half of the steps", title_justify="left", box=SIMPLE
    )
    for name in ("", "mean %", "largest %", "signed %", "held-out bits per byte", "of bf16"):
        table.add_column(name, justify="right" if name else "left")
    for s in figures.seeds:
        table.add_row(
            f"FP8, seed {s.seed}", _number(s.mean_percent), _number(s.max_percent),
            _number(s.signed_percent, signed=True),
            _number(s.fp8_bits_per_byte), _number(s.bf16_bits_per_byte),
        )  # fmt: skip
    f = figures
    table.add_row(
        "FP8, all", _number(f.mean_relative_loss_error_percent), _number(f.max_percent),
        _number(f.signed_percent, signed=True), style="bold", end_section=True,
    )  # fmt: skip
    table.add_row("noise floor", _number(f.noise_floor_percent))
    table.add_row("control", _number(f.control_percent))
    console.print(table)
    console.print("noise floor: bf16 against itself with sums in another order", soft_wrap=True)
    console.print("control: FP8 with gradients of activations in 128 x 128 blocks", soft_wrap=True)
    console.print(
        f"{f.runs} runs of {f.parameters:,} parameters over {f.tokens:,} tokens in {f.steps:,} steps; "
        f"{f.training_seconds / 60:.0f} minutes of training in all",
        soft_wrap=True,
    )
    for name in f.diverged:
        console.print(f"{name} diverged: too many of its steps had to be left out", markup=False)
    console.print(f"picture: {f.picture}\ncurves:  {f.curves}", markup=False, soft_wrap=True)
    console.print(verdict(f), markup=False, soft_wrap=True)


def verdict(f: Figures) -> str:
    """One line: what was measured against what the report states."""
    measured = (
        f"mean {_number(f.mean_relative_loss_error_percent)} %, largest {_number(f.max_percent)} %, "
        f"noise floor {_number(f.noise_floor_percent)} %"
    )
    if f.quick:
        return f"--quick is too short to judge the claim of below {f.limit_percent:g} %: {measured}"
    mean = f.mean_relative_loss_error_percent
    if f.below_limit:
        kept = f"below {f.limit_percent:g} % at every step, as the report states"
    elif mean is not None and mean < f.limit_percent:
        kept = f"below {f.limit_percent:g} % in the mean; the report's was so at every step, this is not"
    else:
        kept = f"not below the {f.limit_percent:g} % that the report states"
    return f"FP8 against bf16: {kept}: {measured}"


def _number(value: float | None, *, signed: bool = False) -> str:
    return DIVERGED if value is None else f"{value:+.3f}" if signed else f"{value:.3f}"


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
