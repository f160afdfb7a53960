"""`fathom import` and `fathom export`: models as the Hugging Face hub has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fathom.config.errors import need, quoted

if TYPE_CHECKING:
    from fathom.checkpoint.convert import Told
    from fathom.checkpoint.exchange import Written

Source = Annotated[
    Path, typer.Argument(metavar="DIR", help="Weights as released, or as transformers saves them.")
]
Model = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A run, a checkpoint, or any official folder.")
]
ShardSize = Annotated[str, typer.Option("--shard-size", help="Most bytes of a file: 5GB, 500MB, 4GiB.")]
Weights = Annotated[str, typer.Option("--weights", help="bf16, or fp8 in blocks as DeepSeek-V3 has.")]
Average = Annotated[bool, typer.Option("--average", help="The run's moving average of the weights.")]

import_app = typer.Typer(no_args_is_help=True, help="Models from elsewhere: hf.")
export_app = typer.Typer(no_args_is_help=True, help="Models for elsewhere: hf.")

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([a-z]{1,3})", re.IGNORECASE)


@import_app.callback()
def _import() -> None:
    """Models from elsewhere: hf."""


@export_app.callback()
def _export() -> None:
    """Models for elsewhere: hf."""


@import_app.command("hf")
def import_hf(
    source: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The new folder.")],
    shard_size: ShardSize = "5GB",
) -> None:
    """Make a folder that fathom reads from official weights; FP8 becomes bf16.

    \b
      fathom import hf DeepSeek-V3 v3-bf16
      fathom chat --model v3-bf16

    Nothing is downloaded, and little memory is needed: a few rows of a tensor at a time.
    """
    most = shard_bytes(shard_size)
    from fathom.checkpoint import exchange

    with _bar(f"import {source}") as told:
        written = exchange.import_hf(source, out, shard_bytes=most, told=told)
    _say(written)


@export_app.command("hf")
def export_hf(
    checkpoint: Model,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The new folder.")],
    weights: Weights = "bf16",
    shard_size: ShardSize = "5GB",
    average: Average = False,
) -> None:
    """Make a folder as DeepSeek-V3 was released: for transformers, for engines, for the hub.

    \b
      fathom export hf runs/tiny tiny-hf
      fathom export hf runs/tiny tiny-fp8 --weights fp8 --average

    A README.md describes the model; its licence is yours to fill in.
    """
    need(weights in ("bf16", "fp8"), f"--weights {weights} is not known", fix="give bf16 or fp8")
    most = shard_bytes(shard_size)
    from fathom.checkpoint import exchange

    with _bar(f"export {checkpoint}") as told:
        written = exchange.export_hf(
            checkpoint,
            folder,
            weights="fp8" if weights == "fp8" else "bf16",
            shard_bytes=most,
            average=average,
            told=told,
        )
    _say(written)


def shard_bytes(text: str) -> int:
    """"5GB" as bytes; ConfigError for what is no size or below one byte."""
    match = SIZE.fullmatch(text.strip())
    unit = UNITS.get(match[2].upper()) if match else None
    size = int(float(match[1]) * unit) if match and unit else 0
    need(size >= 1, f"--shard-size {quoted(text)} is no size", fix="give one such as 5GB, 500MB or 4GiB")
    return size


@contextmanager
def _bar(title: str) -> Iterator[Told]:
    """A bar on stderr where that is a terminal; nothing elsewhere."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _say(written: Written) -> None:
    files = f"{written.files:,} file{'s' if written.files > 1 else ''}"
    size = f"{written.nbytes / 1e9:,.2f} GB in {written.weights}"
    typer.echo(f"{written.folder}: {written.tensors:,} tensors in {files}, {size}")
