"""The whole story in minutes: tokenizer, pre-training with MTP and balancing, fine-tuning, questions.

Time is the budget: a slower machine sees fewer tokens and ends on time. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from fathom.config.counts import count, mha_cache_elements
from fathom.config.folder import disk_errors
from fathom.config.load import Loaded, load_recipe
from fathom.data.smallworld import prompts
from fathom.engine import Engine, EngineConfig
from fathom.engine.stats import Stats
from fathom.evals.questions import Answered, ask, share_right
from fathom.model.transformer import Transformer
from fathom.posttrain.sft import start_sft
from fathom.report import write_report
from fathom.train.log import METRICS
from fathom.train.start import prepare_corpus, start

PRETRAIN, FINE_TUNE = 0.70, 0.16  # shares of the minutes; the rest builds the corpus and asks the questions
QUESTIONS = 200
QUESTION_SEED = 1_000_003  # apart from the seeds of training text; the worlds are held out besides
LAST_STEPS = 100  # whose MaxVio is averaged
CACHE_BYTES = 2  # per element, as caches are kept in bf16


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What `fathom demo` ends with, and `--json` prints."""

    minutes: float  # asked for
    seconds: float  # taken, by this process
    tokens_seen: int  # pre-training and fine-tuning
    steps: int
    bits_per_byte_before: float
    bits_per_byte_after: float
    max_violation: float  # mean over the last steps of pre-training
    parameters_total: int  # trunk, without MTP
    parameters_active: int
    cache_bytes_per_token: int
    mha_cache_bytes_per_token: int
    questions: int
    right: int
    share_right: float
    mtp_acceptance: float  # share of the MTP head's drafts that stood while the questions were answered
    tokens_per_trunk_pass: float  # of an answer, meanwhile; 1 without drafts
    model: str  # folder to chat with
    report: str  # page about its pre-training


def recipes(minutes: float, seed: int) -> tuple[Loaded, Loaded]:
    """Pre-training and fine-tuning, each with its share of the time."""
    seeds = [f"train.seed={seed}", f"data.seed={seed}"]
    first = load_recipe("demo", [f"train.minutes={minutes * PRETRAIN}", *seeds])
    same = f"train.precision={first.recipe.train.precision}"
    second = load_recipe("sft", [f"train.minutes={minutes * FINE_TUNE}", same, *seeds])
    return first, second


def run(minutes: float, out: Path, *, seed: int = 0, quiet: bool = False) -> tuple[Figures, list[Answered]]:
    """Everything but the talking. Writes out/{corpus, pretrain, sft}; called again, it goes on in `out`."""
    begun = time.monotonic()
    loaded, tuning = recipes(minutes, seed)
    first = loaded.recipe
    corpus = prepare_corpus(first, out)
    recipe = replace(first, data=replace(first.data, corpus=str(corpus)))
    trainer = start(
        recipe, out / "pretrain", resume=True, quiet=quiet, title="pre-train", origin=loaded.origin
    )
    measure = trainer.run.held_out
    assert measure is not None, "the demo's recipe holds text out"
    before = measure(Transformer(first.model, seed=seed).to(trainer.machine.device))
    pretrained = trainer.train()
    after = measure(trainer.model)
    base, last = out / "pretrain", out / "sft"
    tuner = start_sft(tuning.recipe, base, last, resume=True, quiet=quiet, origin=tuning.origin)
    tuned = tuner.train()
    answers, stats = ask_held_out(out / "sft", trainer.machine.device, quiet=quiet)
    counts = count(first.model)
    figures = Figures(
        minutes=minutes,
        seconds=round(time.monotonic() - begun, 1),
        tokens_seen=pretrained.tokens + tuned.tokens,
        steps=pretrained.step + tuned.step,
        bits_per_byte_before=before,
        bits_per_byte_after=after,
        max_violation=recent_violation(out / "pretrain"),
        parameters_total=counts.total,
        parameters_active=counts.active,
        cache_bytes_per_token=CACHE_BYTES * counts.cache_elements_per_token,
        mha_cache_bytes_per_token=CACHE_BYTES * mha_cache_elements(first.model),
        questions=len(answers),
        right=sum(a.right for a in answers),
        share_right=share_right(answers),
        mtp_acceptance=stats.acceptance,
        tokens_per_trunk_pass=stats.tokens_per_pass,
        model=str(out / "sft"),
        report=str(write_report([out / "pretrain"])),
    )
    with disk_errors(out):
        (out / "figures.json").write_text(json.dumps(asdict(figures), indent=2) + "\n")
    return figures, answers


def ask_held_out(
    run_folder: Path, device: torch.device, *, quiet: bool = False
) -> tuple[list[Answered], Stats]:
    """200 questions about worlds that no training text mentions, every answer drafted by the MTP head."""
    engine = Engine(run_folder, EngineConfig(device=device.type, speculate="on"))
    asked = list(prompts(QUESTION_SEED, QUESTIONS, held_out=True))
    columns = (TextColumn("asking held-out questions"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, disable=quiet, transient=True) as bar:
        task = bar.add_task("", total=len(asked))
        answers = ask(engine, asked, told=lambda n: bar.update(task, completed=n))
    return answers, engine.stats


def recent_violation(run_folder: Path) -> float:
    """MaxVio averaged over the last steps of a run."""
    lines = (run_folder / METRICS).read_text().splitlines()
    values = [json.loads(line).get("moe/max_violation") for line in lines[-LAST_STEPS:]]
    known = [v for v in values if v is not None]
    return sum(known) / len(known)
