"""`fathom train`: from a recipe to checkpoints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fathom.cli.dry_run import DryRun, Json, dry_run
from fathom.cli.ranks import started_ranks, train_as_rank
from fathom.config.errors import need
from fathom.ops.allocator import keep_memory

# What every command that trains understands.
Out = Annotated[Path, typer.Option("--out", help="Folder of the run.")]
Settings = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings on top.")]
Resume = Annotated[str, typer.Option("--resume", help="auto = go on where the run stopped.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No live line.")]


def resume_wanted(resume: str) -> bool:
    """Whether --resume says auto; ConfigError for anything but auto and none."""
    need(resume in ("auto", "none"), f"--resume {resume} is not known", fix="give auto or none")
    return resume == "auto"


def json_wanted(as_json: bool, only_say: bool) -> None:
    """ConfigError for --json where nothing would be printed."""
    need(only_say or not as_json, "--json belongs to --dry-run", fix="add --dry-run, or leave --json away")


def train(
    recipe: Annotated[str, typer.Argument(help="A packaged recipe, or a .toml file.")],
    out: Out,
    settings: Settings = None,
    resume: Resume = "none",
    quiet: Quiet = False,
    only_say: DryRun = False,
    as_json: Json = False,
) -> None:
    """Pre-train a model by a recipe.

    \b
      fathom train tiny --out runs/tiny
      fathom train own-text data.sources=my-text train.minutes=30 --out runs/mine
      fathom train small --out runs/small --dry-run

    Ctrl-C saves and exits with 130, SIGTERM with 75; --resume auto goes on,
    on a CPU bit for bit.

    
    Many processes share a run under torchrun (settings: parallel.*), whose exit
    status is 1 whatever theirs; it kills them 30 seconds after a signal:
      torchrun --standalone --nproc-per-node 4 -m fathom train tiny \
        parallel.pp=2 parallel.ep=2 parallel.schedule=dualpipe --out runs/four
    """
    from fathom.config.load import load_recipe

    loaded = load_recipe(recipe, settings or [])
    going_on = resume_wanted(resume)
    json_wanted(as_json, only_say)
    if only_say:
        asked = loaded.recipe
        dry_run(asked.model, asked.train, out, title=f"fathom train {recipe}", as_json=as_json)
        if asked.parallel.world > 1:
            said = f"memory is that of one process; {asked.parallel.world:,} ranks share this run"
            print(f"fathom: warning: {said}", file=sys.stderr)
        return
    keep_memory()
    ranks = started_ranks()
    if ranks is None:
        from fathom.train.start import start

        start(loaded.recipe, out, resume=going_on, quiet=quiet, origin=loaded.origin).train()
        return
    train_as_rank(ranks, loaded, out, resume=going_on, quiet=quiet)
