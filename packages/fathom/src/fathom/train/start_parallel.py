"""`start` where many ranks share the run: every rank calls it, and what is wrong on one is said on all."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from fathom.checkpoint.manifest import MANIFEST
from fathom.config.recipe import Recipe
from fathom.parallel.agree import agree, check_world, fingerprint, together
from fathom.parallel.group import Group
from fathom.parallel.mesh import make_mesh
from fathom.parallel.stage import fill
from fathom.train.machine import Machine, survey
from fathom.train.parallel import ParallelTrainer
from fathom.train.pipeline import Pipeline
from fathom.train.precision import kernels_for, with_products
from fathom.train.start import check_out, check_same_model, open_run, prepare_corpus, saved_precision


def start_parallel(
    recipe: Recipe,
    out: Path,
    world: Group,
    *,
    resume: bool = False,
    quiet: bool = False,
    title: str = "train",
    origin: Mapping[str, str] | None = None,
) -> ParallelTrainer:
    """This rank's part of a run; `out` and the corpus are on a disk that all ranks see.

    errors   as `start`, the same one on every rank; ConfigError where ranks differ in recipe or code
    """
    check_world(recipe.parallel, world.size)
    agree(world, fingerprint(recipe))
    saved = together(world, lambda: check_out(out, resume))
    found = "none" if saved is None else f"{saved.folder.name} {_digest(saved.folder, MANIFEST)}"
    agree(world, {"checkpoint": found})
    if saved is not None:
        check_same_model(saved.config, recipe.model, out)
    precision = saved_precision(recipe.train.precision, saved)
    machine = _agreed(world, together(world, lambda: survey(recipe.train.device, precision)), recipe)
    if world.rank == 0:
        together(world, lambda: prepare_corpus(recipe, out))
    else:
        together(world, lambda: None)
    corpus = together(world, lambda: prepare_corpus(recipe, out))
    agree(world, {"corpus": _digest(corpus, "meta.json", "tokenizer.json")})
    loader, run = together(
        world,
        lambda: open_run(recipe, out, corpus, machine, title=title, quiet=quiet, origin=origin or {}),
    )
    kernels = kernels_for(recipe.train, machine)
    machine = with_products(machine, kernels)
    pipeline = Pipeline(recipe.model, recipe.parallel, make_mesh(recipe.parallel, world), kernels)
    if saved is None:
        fill(pipeline.model, pipeline.experts, recipe.train.seed)
    trainer = ParallelTrainer(pipeline, recipe.train, loader, machine, run)
    if saved is not None:
        together(world, lambda: trainer.resume(saved))
    return trainer


def _digest(folder: Path, *names: str) -> str:
    """Of files that tell what is in a folder; those that are not there count as empty."""
    text = b"".join((folder / name).read_bytes() for name in names if (folder / name).is_file())
    return sha256(text).hexdigest()[:16]


def _agreed(world: Group, own: Machine, recipe: Recipe) -> Machine:
    """The precision that rank 0 found faster, and the matmul rate of all ranks together."""
    first, *_ = everyone = world.gather_objects([own.precision, own.peak_flops])
    if own.precision != first[0]:
        own = survey(recipe.train.device, first[0])
    return own._replace(peak_flops=sum(rate for _, rate in everyone))
