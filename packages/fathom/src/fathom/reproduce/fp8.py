"""The loss of FP8 training against that of bf16 on the same data (report section 3.3, appendices B.1, B.2).

DIR/NAME           the runs of `fp8_runs`, ordinary folders of `fathom train`; DIR/corpus is what all read
DIR/figures.json   the closing figures, and for each run its settings and its machine
DIR/curves.csv     losses and relative errors of every step
DIR/fp8.svg        the same as a picture
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fathom.config.dump import to_flat
from fathom.config.folder import write_file
from fathom.config.load import Loaded
from fathom.report import units
from fathom.report.jsonl import read_object
from fathom.reproduce.board import Board
from fathom.reproduce.experiment import experiment_in
from fathom.reproduce.fp8_figures import (
    LIMIT_PERCENT,
    Figures,
    curves_csv,
    differences,
    figures_of,
    finite,
    percent,
)
from fathom.reproduce.fp8_picture import Curve, draw_picture
from fathom.reproduce.fp8_runs import CONTROL, NOISE, kind, planned, references
from fathom.reproduce.records import Record, check_same_batches, is_finished, read_record
from fathom.reproduce.relative_error import Difference, smoothed
from fathom.reproduce.side_by_side import Job, train_side_by_side
from fathom.train.about import ABOUT
from fathom.train.start import prepare_corpus

FIGURES, CURVES, PICTURE = "figures.json", "curves.csv", "fp8.svg"
COMMAND = "fathom reproduce fp8"


def run(out: Path, *, quick: bool, jobs: int, cores: int, quiet: bool = False) -> Figures:
    """All runs and what they show, in `out`; called again, it goes on there.

    jobs     runs at a time; 0 = one per core
    cores    shared by them
    errors   Stopped after a signal, with every run saved; ConfigError where `out` holds something else
    """
    begun = time.monotonic()
    plan = planned(quick)
    jobs = min(jobs or cores, len(plan))
    command = f"{COMMAND} --quick" if quick else COMMAND
    with experiment_in(out, command, {name: loaded.recipe for name, loaded in plan.items()}):
        train(plan, out, jobs=jobs, threads=max(cores // jobs, 1), quiet=quiet)
        for name, reference in references(quick).items():
            check_same_batches(out / name, out / reference)
        records = {name: read_record(out / name) for name in plan}
        figures = figures_of(
            records, next(iter(plan.values())).recipe.model,
            quick=quick, seconds=time.monotonic() - begun,
            picture=str(out / PICTURE), curves=str(out / CURVES),
        )  # fmt: skip
        write(figures, plan, records, out)
    return figures


def train(plan: Mapping[str, Loaded], out: Path, *, jobs: int, threads: int, quiet: bool) -> None:
    """Every run of the plan that has not ended, on one corpus."""
    corpus = prepare_corpus(next(iter(plan.values())).recipe, out)
    every = [Job(name=name, loaded=on(corpus, loaded), folder=out / name) for name, loaded in plan.items()]
    left = [job for job in every if not is_finished(job.folder, job.loaded.recipe.train)]
    with Board(every, quiet=quiet) as board:
        train_side_by_side(left, workers=jobs, threads=threads, told=board.update)


def on(corpus: Path, loaded: Loaded) -> Loaded:
    """The same run, reading a corpus that is there."""
    recipe = replace(loaded.recipe, data=replace(loaded.recipe.data, corpus=str(corpus)))
    return Loaded(recipe=recipe, origin={**loaded.origin, "data.corpus": COMMAND})


def write(figures: Figures, plan: Mapping[str, Loaded], records: Mapping[str, Record], out: Path) -> None:
    """figures.json, curves.csv and the picture."""
    apart = differences(records, quick=figures.quick)
    write_file(out / CURVES, curves_csv(records, apart))
    losses, errors = curves_of(records, apart)
    write_file(out / PICTURE, draw_picture(losses, errors, LIMIT_PERCENT, subtitle(figures)))
    each = {name: about_run(plan[name], record, out / name) for name, record in records.items()}
    for name, difference in apart.items():
        each[name]["mean_percent"] = percent(difference.mean)
    text = json.dumps(asdict(figures) | {"each_run": each}, indent=2, allow_nan=False)
    write_file(out / FIGURES, text + "\n")


def about_run(loaded: Loaded, record: Record, folder: Path) -> dict[str, Any]:
    """What figures.json says of one run: the settings that are its own, how it went, its machine."""
    settings, about = to_flat(loaded.recipe), read_object(folder / ABOUT)
    return {
        "settings": {key: settings[key] for key, source in loaded.origin.items() if source == "command line"},
        "steps": len(record.losses),
        "tokens": record.tokens[-1] if record.tokens else 0,
        "seconds": round(record.seconds, 1),
        "last_smoothed_loss": finite(smoothed(record.losses)[-1]) if record.losses else None,
        "bits_per_byte": finite(record.bits_per_byte),
        "steps_left_out": record.skipped,
        "diverged": record.diverged,
        **{key: about.get(key) for key in ("machine", "fathom", "torch", "python", "started")},
    }


def curves_of(
    records: Mapping[str, Record], apart: Mapping[str, Difference]
) -> tuple[list[Curve], list[Curve]]:
    """What the two panels show: smoothed losses of bf16 and FP8; errors in percent of every run measured."""
    losses = [
        Curve(kind(name), name, record.tokens, smoothed(record.losses))
        for name, record in records.items()
        if name not in (NOISE, CONTROL)
    ]
    errors = [
        Curve(kind(name), name, records[name].tokens, [100.0 * e for e in difference.error])
        for name, difference in apart.items()
    ]
    return losses, errors


def subtitle(figures: Figures) -> str:
    """Sizes, in one line."""
    seeds = "one seed" if len(figures.seeds) == 1 else f"{len(figures.seeds)} seeds"
    size, read = units.count(figures.parameters), units.count(figures.tokens)
    short = "; too short to judge the claim" if figures.quick else ""
    return f"{size} parameters, {read} tokens, {seeds}; losses smoothed by an EMA of 0.9{short}"
