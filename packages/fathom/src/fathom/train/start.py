"""From a recipe to a run that is ready to step: corpus, tokenizer, model, data, and what was saved before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

import torch

from fathom.checkpoint.find import latest
from fathom.checkpoint.newest import Saved, load_newest
from fathom.checkpoint.tokenizer_files import check_tokenizer
from fathom.config.dump import to_dict, to_toml
from fathom.config.errors import need
from fathom.config.folder import check_folder
from fathom.config.model import ModelConfig
from fathom.config.parallel import check_alone
from fathom.config.recipe import Recipe
from fathom.data.build import build_corpus
from fathom.data.corpus import CorpusMeta
from fathom.data.loader import Loader
from fathom.data.tokenizer import Tokenizer
from fathom.model.transformer import Transformer
from fathom.train.held_out import bits_per_byte
from fathom.train.log import METRICS
from fathom.train.loop import Run, Trainer, noted
from fathom.train.machine import Machine, survey
from fathom.train.precision import kernels_for, with_products
from fathom.train.samples import held_out_samples

EVAL_ROWS = 16  # most rows per forward pass of an evaluation
EVAL_TOKENS = 65_536  # held-out tokens an evaluation reads at most


def prepare_corpus(recipe: Recipe, out: Path) -> Path:
    """The corpus of `recipe`: the folder it names, or one built in `out`/corpus unless that exists."""
    if recipe.data.corpus:
        return Path(recipe.data.corpus)
    folder = out / "corpus"
    if not folder.exists():
        given = recipe.model.vocab_size if recipe.data.tokenizer else None  # it must fit the model
        build_corpus(recipe.data, folder, vocab_size=given)
        return folder
    built, asked = CorpusMeta.load(folder).config, recipe.data.content()
    other = sorted(key for key, value in asked.items() if built.get(key) != value)
    need(
        not other,
        f"{folder} was built with another data.{', data.'.join(other)}",
        fix="delete that folder to build it anew, or give another --out",
    )
    return folder


def check_out(out: Path, resume: bool) -> Saved | None:
    """What to go on from: the newest checkpoint of `out` whose bytes are all intact; None to start anew.

    raises   ConfigError when `out` holds a run and `resume` is off: nothing is overwritten
             DataError when it holds checkpoints and none is intact
    """
    check_folder(out)
    found = latest(out, resumable=True)
    log = out / METRICS
    need(
        resume or found is not None or not (log.is_file() and log.stat().st_size),
        f"{out} holds the record of a run that left no checkpoint",
        fix="give another --out, delete that folder, or add --resume auto to begin anew in it",
    )
    need(
        found is None or resume,
        f"{out} already holds a run ({found.name if found else ''})",
        fix="add --resume auto to go on with it, or give another --out",
    )
    return load_newest(out) if found is not None else None


def check_same_model(saved: ModelConfig, asked: ModelConfig, out: Path) -> None:
    """ConfigError when a run is resumed with another network than it was started with."""
    need(
        saved == asked,
        f"the run in {out} has another model than this recipe ({_first_difference(saved, asked)})",
        fix="resume with the recipe of the run, which is in its folder as recipe.toml, or give another --out",
    )


def _first_difference(saved: object, asked: object, name: str = "model") -> str:
    if not hasattr(saved, "__dataclass_fields__"):
        return f"{name} was {saved!r}, now {asked!r}"
    for key in saved.__dataclass_fields__:
        before, now = getattr(saved, key), getattr(asked, key)
        if before != now:
            return _first_difference(before, now, f"{name}.{key}")
    return name


def held_out_measure(
    corpus: Path, recipe: Recipe, tokenizer: Tokenizer, machine: Machine
) -> Callable[[Transformer], float] | None:
    """A function that gives a model's bits per byte on the corpus's held-out split; None if it has none."""
    if not any(series.tokens for series in CorpusMeta.load(corpus).series(corpus, "held_out")):
        return None
    seq_len, seed = recipe.train.seq_len, recipe.train.seed
    loader = Loader(corpus, split="held_out", seq_len=seq_len, seed=seed, packing=recipe.data.packing)
    byte_length_V = torch.from_numpy(tokenizer.byte_lengths())
    rows = min(EVAL_ROWS, recipe.train.micro_batch or recipe.train.batch_size)  # what fits into memory
    most = max(EVAL_TOKENS // (seq_len * rows), 1)
    masked = recipe.train.mask_documents

    def measure(model: Transformer) -> float:
        batches = (b.to(machine.device) for b in islice(loader.epoch(rows), most))
        return bits_per_byte(model, batches, byte_length_V, dtype=machine.dtype, mask_documents=masked)

    return measure


def start(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    title: str = "train",
    origin: Mapping[str, str] | None = None,
) -> Trainer:
    """Everything of `fathom train` up to the first step.

    resume   go on from the newest intact checkpoint of `out`, if there is one
    origin   where each setting came from, for the record
    errors   ConfigError, DataError and DiskError in one line, before anything is overwritten
    """
    world = recipe.parallel.world
    check_alone(recipe.parallel, f"torchrun --standalone --nproc-per-node {world} -m fathom train ...")
    saved = check_out(out, resume)
    if saved is not None:
        check_same_model(saved.config, recipe.model, out)
    machine = survey(recipe.train.device, saved_precision(recipe.train.precision, saved))
    corpus = prepare_corpus(recipe, out)
    loader, run = open_run(recipe, out, corpus, machine, title=title, quiet=quiet, origin=origin or {})
    kernels = kernels_for(recipe.train, machine)
    machine = with_products(machine, kernels)
    model = Transformer(recipe.model, kernels=kernels, seed=recipe.train.seed if saved is None else None)
    trainer = Trainer(model, recipe.train, loader, machine, run)
    if saved is not None:
        trainer.resume(saved)
    return trainer


def open_run(
    recipe: Recipe,
    out: Path,
    corpus: Path,
    machine: Machine,
    *,
    title: str,
    quiet: bool,
    origin: Mapping[str, str],
) -> tuple[Loader, Run]:
    """The corpus's rows in the order of training, and what the run writes and reports."""
    tokenizer = Tokenizer.load(corpus)
    check_tokenizer(tokenizer.size, recipe.model)
    loader = Loader(
        corpus,
        split="train",
        seq_len=recipe.train.seq_len,
        seed=recipe.train.seed,
        weights=recipe.data.weights,
        packing=recipe.data.packing,
    )
    run = Run(
        folder=out,
        recipe=to_dict(recipe),
        as_toml=to_toml(recipe),
        tokenizer=corpus,
        title=title,
        quiet=quiet,
        origin=origin,
        held_out=held_out_measure(corpus, recipe, tokenizer, machine),
        samples=held_out_samples(corpus, tokenizer, recipe.train.log.samples, recipe.model.max_positions),
        notes={"precision": machine.precision},
    )
    return loader, run


def saved_precision(asked: str, saved: Saved | None) -> str:
    """What a run goes on in: "auto" is measured once, at its start, because a run resumes bit for bit."""
    return asked if saved is None or asked != "auto" else str(noted(saved.training, "precision"))
