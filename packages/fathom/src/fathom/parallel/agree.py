"""Errors that all ranks see at once: in numbers, in what they run, in what only one of them finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Any, TypeVar

import torch

from fathom.config.dump import to_toml
from fathom.config.errors import ConfigError, FathomError, need, quoted
from fathom.config.parallel import ParallelConfig
from fathom.config.recipe import Recipe
from fathom.parallel.group import Group, RankFailedError

Result = TypeVar("Result")

MOST_NAMED = 4  # ranks that a message names; on 2048 all of them would hide the point
CODE = (".py", ".toml", ".jinja")
FIXES = {
    "recipe": "start every rank with the same recipe and the same overrides",
    "code": "install the same fathom on every machine",
    "torch": "install the same torch on every machine",
    "checkpoint": "give an --out that all machines see, and start again when they see the same files in it",
    "corpus": "give a data.corpus that all machines see",
}


def check_world(config: ParallelConfig, size: int) -> None:
    """Raise ConfigError unless the mesh multiplies to `size` ranks; names the number to change."""
    pp, dp, ep = config.pp, config.dp, config.ep
    others = {"dp": pp * ep, "ep": pp * dp, "pp": dp * ep}  # the first whose number can make up for it
    fit = {name: size // rest for name, rest in others.items() if size % rest == 0}
    change = [f"set parallel.{name} to {number}, or " for name, number in fit.items()]
    need(
        config.world == size,
        f"parallel.pp={pp} x parallel.dp={dp} x parallel.ep={ep} is {config.world} ranks, but {size} started",
        fix=f"{change[0] if change else ''}start {config.world} ranks",
    )


def fingerprint(recipe: Recipe) -> dict[str, str]:
    """What must be the same on every rank: the recipe with all its settings, fathom's sources, torch."""
    code = sha256()
    for name, content in sorted(_sources(files("fathom"), "")):
        code.update(f"{name} {len(content)}\n".encode() + content)
    written = sha256(to_toml(recipe).encode()).hexdigest()
    return {"recipe": written[:16], "code": code.hexdigest()[:16], "torch": str(torch.__version__)}


def _sources(folder: Any, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _sources(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(CODE):
            yield prefix + entry.name, entry.read_bytes()


def agree(group: Group, mine: Mapping[str, str]) -> None:
    """Raise the same ConfigError on every rank unless all have the same `fingerprint`."""
    every = group.gather_objects(dict(mine))
    for name in dict.fromkeys(name for one in every for name in one):
        values = [one.get(name, "none") for one in every]
        usual = Counter(values).most_common(1)[0][0]
        odd = [rank for rank, value in enumerate(values) if value != usual]
        if odd:
            named = ", ".join(f"{rank} has {quoted(values[rank])}" for rank in odd[:MOST_NAMED])
            more = f" and {len(odd) - MOST_NAMED} more ranks differ" if len(odd) > MOST_NAMED else ""
            most = f"rank {values.index(usual)} has {quoted(usual)}"
            fix = FIXES.get(name, f"give every rank the same {name}")
            what = f"{name} is not the same on all ranks: {most}, but rank {named}{more}"
            raise ConfigError(f"{what}. Fix: {fix}")


def together(group: Group, function: Callable[[], Result]) -> Result:
    """What `function` returns; where it raises a FathomError on any rank, that error on every rank.

    Every rank calls it, at a point where a rank that stopped alone would leave the others waiting. The error
    of the lowest rank that failed is the one raised.
    """
    result, problem = None, None
    try:
        result = function()
    except RankFailedError:  # then nobody answers any more
        raise
    except FathomError as error:
        result, problem = None, [type(error).__name__, str(error)]
    problems = group.gather_objects(problem)
    failed = [rank for rank, one in enumerate(problems) if one is not None]
    if not failed:
        return result  # type: ignore[return-value]  # it is the function's own
    name, text = problems[failed[0]]
    everywhere = all(one == problems[0] for one in problems)
    kinds: dict[str, type[FathomError]] = {kind.__name__: kind for kind in FathomError.__subclasses__()}
    raise kinds.get(name, FathomError)(text if everywhere else f"on rank {failed[0]}: {text}")
