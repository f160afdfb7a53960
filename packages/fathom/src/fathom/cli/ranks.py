"""One of many processes that torchrun started: what it says of itself, and the run they share."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from fathom.config.errors import FathomError, need
from fathom.config.load import Loaded

if TYPE_CHECKING:
    from fathom.parallel.processes import Processes

PATIENCE_S = 1800.0  # a rank may build a corpus while the others wait


class Ranks(NamedTuple):
    """This process among those that were started."""

    rank: int
    size: int
    local: int  # among those of this machine


def started_ranks() -> Ranks | None:
    """What torchrun's environment says; None without it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ and "WORLD_SIZE" not in os.environ:
        return None
    given = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    need(
        all(value.isdigit() for value in given.values()),
        f"the environment says {', '.join(f'{name}={value or None}' for name, value in given.items())}",
        fix="start the ranks with torchrun, or unset WORLD_SIZE",
    )
    return Ranks(*(int(value) for value in given.values()))


def train_as_rank(ranks: Ranks, loaded: Loaded, out: Path, *, resume: bool, quiet: bool) -> None:
    """This process's part of a run. An error that all ranks raise is printed by rank 0 alone."""
    import torch

    from fathom.parallel.processes import join, leave
    from fathom.train.start_parallel import start_parallel
    from fathom.train.stop import Diverged, Stopped

    asked, backend = loaded.recipe.train.device, loaded.recipe.parallel.backend
    cuda = asked == "cuda" or (asked == "auto" and torch.cuda.is_available())
    device = torch.device("cuda", ranks.local) if cuda else torch.device("cpu")
    world = join(ranks.rank, ranks.size, device, backend=backend, patience_s=PATIENCE_S)
    with _ends_at_once():
        with _said_once(world, FathomError):
            trainer = start_parallel(
                loaded.recipe, out, world, resume=resume, quiet=quiet, origin=loaded.origin
            )
        with _said_once(world, Stopped, Diverged):
            trainer.train()
        leave(world)


@contextlib.contextmanager
def _ends_at_once() -> Iterator[None]:
    """A rank that fails alone does not wait for the threads of its groups, which wait for the other ranks."""
    try:
        yield
    except typer.Exit:
        raise
    except FathomError as error:
        print(f"fathom: {error}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


@contextlib.contextmanager
def _said_once(world: Processes, *kinds: type[FathomError]) -> Iterator[None]:
    """Where every rank raises the same error of these kinds, all part, and rank 0 prints it."""
    from fathom.parallel.group import RankFailedError
    from fathom.parallel.processes import leave

    try:
        yield
    except RankFailedError:
        raise
    except kinds as error:
        rank = world.rank
        leave(world)
        if rank == 0:
            print(f"fathom: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
