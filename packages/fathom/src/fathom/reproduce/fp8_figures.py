"""What the runs of `fathom reproduce fp8` show: the closing figures, and curves as a table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fathom.config.counts import count
from fathom.config.model import ModelConfig
from fathom.reproduce.fp8_runs import CONTROL, NOISE, REFERENCE, references, seeds_of
from fathom.reproduce.records import Record
from fathom.reproduce.relative_error import Difference, compare

LIMIT_PERCENT = 0.25  # "consistently below", report section 3.3


@dataclass(frozen=True, kw_only=True)
class SeedFigures:
    """One seed's FP8 run against its bf16 run."""

    seed: int
    mean_percent: float | None
    max_percent: float | None
    signed_percent: float | None  # above 0 = FP8 is worse
    bf16_bits_per_byte: float | None  # of held-out text, at the end
    fp8_bits_per_byte: float | None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What `fathom reproduce fp8` ends with, and `--json` prints.

    Percents are of the bf16 loss, over the last half of the steps, losses smoothed; None where that is not
    finite, because a run diverged.
    """

    mean_relative_loss_error_percent: float | None  # mean over the seeds
    max_percent: float | None  # of any step of any seed
    noise_floor_percent: float | None  # mean, of bf16 against bf16 with another order of summation
    control_percent: float | None  # mean, of FP8 with gradients in blocks
    signed_percent: float | None  # mean over the seeds, of errors with their signs
    limit_percent: float
    below_limit: bool  # at every step of the last half
    quick: bool  # too short to judge the claim
    seeds: list[SeedFigures]
    parameters: int  # without MTP
    tokens: int  # of one run
    steps: int
    runs: int
    diverged: list[str]  # runs
    training_seconds: float  # of all runs, added up
    seconds: float  # taken, by this process
    picture: str
    curves: str


def differences(records: Mapping[str, Record], *, quick: bool) -> dict[str, Difference]:
    """Every run that is measured, by its name, against its reference."""
    against = references(quick)
    return {name: compare(records[name].losses, records[other].losses) for name, other in against.items()}


def figures_of(
    records: Mapping[str, Record],
    model: ModelConfig,
    *,
    quick: bool,
    seconds: float,
    picture: str,
    curves: str,
) -> Figures:
    """The closing figures of runs that have ended."""
    apart, seeds = differences(records, quick=quick), seeds_of(quick)
    each = [apart[f"fp8-{seed}"] for seed in seeds]
    largest = max(d.largest for d in each)
    return Figures(
        mean_relative_loss_error_percent=percent(math.fsum(d.mean for d in each) / len(each)),
        max_percent=percent(largest),
        noise_floor_percent=percent(apart[NOISE].mean),
        control_percent=percent(apart[CONTROL].mean),
        signed_percent=percent(math.fsum(d.signed for d in each) / len(each)),
        limit_percent=LIMIT_PERCENT,
        below_limit=100.0 * largest < LIMIT_PERCENT,
        quick=quick,
        seeds=[_of_seed(seed, apart[f"fp8-{seed}"], records) for seed in seeds],
        parameters=count(model).total,
        tokens=records[REFERENCE].tokens[-1],
        steps=len(records[REFERENCE].tokens),
        runs=len(records),
        diverged=[name for name, record in records.items() if record.diverged],
        training_seconds=round(math.fsum(record.seconds for record in records.values()), 1),
        seconds=round(seconds, 1),
        picture=picture,
        curves=curves,
    )


def _of_seed(seed: int, apart: Difference, records: Mapping[str, Record]) -> SeedFigures:
    return SeedFigures(
        seed=seed,
        mean_percent=percent(apart.mean),
        max_percent=percent(apart.largest),
        signed_percent=percent(apart.signed),
        bf16_bits_per_byte=finite(records[f"bf16-{seed}"].bits_per_byte),
        fp8_bits_per_byte=finite(records[f"fp8-{seed}"].bits_per_byte),
    )


def curves_csv(records: Mapping[str, Record], apart: Mapping[str, Difference]) -> str:
    """A line per step: tokens read, the loss of every run, the relative errors in percent; empty = none."""
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(["step", "tokens", *(f"{n} loss" for n in records), *(f"{n} error %" for n in apart)])
    for i, tokens in enumerate(records[REFERENCE].tokens):
        losses = [_at(record.losses, i) for record in records.values()]
        errors = [_at([100.0 * e for e in d.error], i) for d in apart.values()]
        lines.writerow([i + 1, tokens, *losses, *errors])
    return file.getvalue()


def percent(share: float) -> float | None:
    """A share as a percentage of four decimals; None if it is not finite."""
    return finite(100.0 * share, 4)


def finite(value: float, digits: int = 5) -> float | None:
    """Rounded; None if it is not finite."""
    return round(value, digits) if math.isfinite(value) else None


def _at(values: Sequence[float], i: int) -> str:
    return f"{values[i]:.6g}" if i < len(values) and math.isfinite(values[i]) else ""
