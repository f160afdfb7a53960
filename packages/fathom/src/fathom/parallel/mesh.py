"""Which rank has which part of a run, and whom it talks to about what (report sections 3.1 and 3.2).

Ranks are numbered so that those which talk most are neighbours: (pp index * dp + dp index) * ep + ep index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fathom.config.parallel import ParallelConfig
from fathom.parallel.agree import check_world
from fathom.parallel.group import Group

Parts = list[tuple[int, ...]]


class Place(NamedTuple):
    """Where a rank is in the mesh."""

    pp: int
    dp: int
    ep: int


def place_of(rank: int, config: ParallelConfig) -> Place:
    """The place of a rank of the world."""
    stage, within = divmod(rank, config.token_ranks)
    return Place(stage, *divmod(within, config.ep))


def rank_at(place: Place, config: ParallelConfig) -> int:
    """The rank of the world at a place."""
    return (place.pp * config.dp + place.dp) * config.ep + place.ep


def parts(config: ParallelConfig) -> dict[str, Parts]:
    """For each group of `Mesh`, by its name, the ranks of the world that form one; each list ascends.

    No rank is twice in the parts of one name.
    """
    P, D, E = range(config.pp), range(config.dp), range(config.ep)
    per_node = min(config.ranks_per_node, config.ep)
    places, nodes = range(per_node), range(config.nodes)

    def at(pp: int, dp: int, ep: int) -> int:
        return rank_at(Place(pp, dp, ep), config)

    def columns(stages: Sequence[int]) -> Parts:
        return [tuple(at(p, d, e) for p in stages) for d in D for e in E]

    mirrors = [(p, config.pp - 1 - p) for p in range(config.pp // 2)] if config.schedule == "dualpipe" else []
    return {
        "pipeline": columns(P),
        "replicas": [tuple(at(p, d, e) for d in D) for p in P for e in E],
        "experts": [tuple(at(p, d, e) for e in E) for p in P for d in D],
        "tokens": [tuple(at(p, d, e) for d in D for e in E) for p in P],
        "within": [tuple(at(p, d, n * per_node + e) for e in places) for p in P for d in D for n in nodes],
        "across": [tuple(at(p, d, n * per_node + e) for n in nodes) for p in P for d in D for e in places],
        "mirror": [part for mirror in mirrors for part in columns(mirror)],
        "ends": columns(sorted({0, config.pp - 1})),
    }


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """One rank's place and its groups; ranks of a group are in the order of the world's.

    pipeline  the ranks that a micro-batch passes; rank = pp index
    replicas  the ranks that hold the same experts; rank = dp index
    experts   the ranks that share out the experts of a stage; rank = ep index
    tokens    all ranks of the stage: they hold the same weights besides experts, and see different rows
    within    the ranks of `experts` on this node
    across    those with this one's place on every node of `experts`
    mirror    DualPipe only: pipeline ranks r and pp-1-r, which hold the same two stages; None otherwise
    ends      the first and the last pipeline rank: the trunk's embedding and MTP's; None in between
    """

    config: ParallelConfig
    place: Place
    world: Group
    pipeline: Group
    replicas: Group
    experts: Group
    tokens: Group
    within: Group
    across: Group
    mirror: Group | None
    ends: Group | None


def make_mesh(config: ParallelConfig, world: Group) -> Mesh:
    """Form all groups; every rank of the world calls it. Raises ConfigError where the numbers differ."""
    check_world(config, world.size)
    own: dict[str, Group] = {}
    for name, some in parts(config).items():
        for ranks in some:
            group = world.subgroup(ranks)
            if group is not None:
                own[name] = group
    return Mesh(
        config=config,
        place=place_of(world.rank, config),
        world=world,
        pipeline=own["pipeline"],
        replicas=own["replicas"],
        experts=own["experts"],
        tokens=own["tokens"],
        within=own["within"],
        across=own["across"],
        mirror=own.get("mirror"),
        ends=own.get("ends"),
    )
