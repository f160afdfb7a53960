"""The training loop: steps until the budget is spent, saved so that it can go on bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fathom.checkpoint.find import CHECKPOINTS, prune, step_folders
from fathom.checkpoint.newest import Saved, load_newest
from fathom.checkpoint.save import save_checkpoint
from fathom.checkpoint.training import TrainingState
from fathom.config.counts import flops_per_token
from fathom.config.errors import DataError, need
from fathom.config.folder import write_file
from fathom.config.train import TrainConfig
from fathom.data.batch import Batch
from fathom.model.transformer import Transformer
from fathom.ops.fp8.shared import Found
from fathom.train.about import describe_run, write_about
from fathom.train.balance import max_violation, update_biases
from fathom.train.budget import Budget, Position
from fathom.train.live import LiveLine, describe
from fathom.train.log import BITS_PER_BYTE, Journal, Sample
from fathom.train.machine import Machine
from fathom.train.optimizer import Optimizer
from fathom.train.precision import lookouts, moments_of
from fathom.train.schedule import batch_rows, bias_speed, learning_rate, mtp_weight
from fathom.train.sinks import open_sinks
from fathom.train.spikes import Watch
from fathom.train.step import Losses, Weights, backward
from fathom.train.stop import Diverged, Stopped, StopSignals, only_run_in

RECIPE = "recipe.toml"
SMOOTHING = 0.95  # share of the past in the loss of the live line; metrics.jsonl holds each step's own


class Rows(Protocol):
    """Where batches come from: a corpus, or conversations."""

    def next(self, rows: int) -> Batch:
        """The next rows."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as JSON."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


def noted(training: TrainingState, name: str) -> Any:
    """What a checkpoint keeps beside the usual; DataError if it is not there."""
    need(
        name in training.extra,
        f"the checkpoint of step {training.step} does not say its {name}",
        fix="resume from an older checkpoint, or start from its weights with a new run",
        error=DataError,
    )
    return training.extra[name]


@dataclass
class Run:
    """What belongs to one run beside its model: where it writes and what it reports."""

    folder: Path
    recipe: Mapping[str, Any]  # stored in every checkpoint
    as_toml: str  # the same, for people and for another run
    tokenizer: Path  # folder whose tokenizer files every checkpoint carries
    title: str = "train"
    quiet: bool = False
    origin: Mapping[str, str] = field(default_factory=dict)  # where each setting came from
    held_out: Callable[[Transformer], float] | None = None  # bits per byte
    samples: Callable[[Transformer], list[Sample]] | None = None  # texts that the model goes on with
    notes: Mapping[str, str] = field(default_factory=dict)  # kept in every checkpoint
    last: dict[str, float] = field(default_factory=dict)  # metrics of the last step


class Trainer:
    """A model, its optimizer, its data and its place in the run."""

    def __init__(
        self, model: Transformer, config: TrainConfig, data: Rows, machine: Machine, run: Run
    ) -> None:
        self.model, self.config, self.data, self.machine, self.run = model, config, data, machine, run
        self.budget, self.at = Budget(config), Position()
        model.to(machine.device)
        model.recompute = config.recompute
        self.optimizer = Optimizer(model, config.optim, machine.dtype, moments_of(config.optim, machine))
        self._not_finite = lookouts(model)
        self.watch = Watch(config.stability)
        self._flops = flops_per_token(model.config, config.seq_len)
        self._saved: Path | None = None  # the checkpoint of this very step
        self._resumed = ""  # from where, for the record
        self._damaged: set[Path] = set()  # checkpoints whose bytes are known to have changed
        self._count_LE: Tensor | None = None  # tokens per expert since the last record of loads
        self._smooth: float | None = None  # the loss as the live line shows it

    def train(self) -> Position:
        """Step until the budget is spent, save, and return where that was.

        Raises Stopped (130 or 75) after a signal, with the run saved; Diverged (3) if too many steps fail.
        """
        with self._folder():
            self._train()
        return self.at

    def _folder(self) -> AbstractContextManager[None]:
        """Keeps other processes out."""
        return only_run_in(self.run.folder)

    def _train(self) -> None:
        begun = self.at.step
        every, quiet = self.config.log.every, self.run.quiet
        with StopSignals() as stop, LiveLine(self.run.title, every=every, quiet=quiet) as live:
            live.say(f"{self.run.title}: {self.machine.describe()}")
            with closing(self._journal(live)) as journal:
                if self._resumed:
                    journal.event(self.at.step, "resumed", self._resumed)
                self._evaluate(journal, live)  # what a kill took away
                while self.budget.progress(self.at) < 1.0:
                    self._step_and_report(journal, live)
                    self._heed(stop, journal)
                if self.at.step > begun:
                    live.say(f"{self.watch.summary(self.at.step)}; saved {self.save()}")
                self._heed(stop, journal)

    def _journal(self, live: LiveLine) -> Journal:
        run = self.run
        write_file(run.folder / RECIPE, run.as_toml)
        described = describe_run(
            run.title, run.recipe, run.origin, self.machine,
            model=self.model.config, seq_len=self.config.seq_len,
        )  # fmt: skip
        about, wandb = write_about(run.folder, described), self.config.log.wandb
        sinks = open_sinks(run.folder, step=self.at.step, wandb=wandb, about=about, say=live.say)
        return Journal(run.folder, step=self.at.step, sinks=sinks)

    def _heed(self, stop: StopSignals, journal: Journal) -> None:
        """Save and raise Stopped if a signal has come."""
        code = self._signalled(stop)
        if code is not None:
            folder = self._save(journal)
            journal.event(self.at.step, "stopped", f"by a signal, exit status {code}")
            goes_on = "the same command goes on (train and sft: with --resume auto)"
            raise Stopped(f"stopped at step {self.at.step}, saved {folder}; {goes_on}", code)

    def _signalled(self, stop: StopSignals) -> int | None:
        """The exit status that a signal asks for."""
        return stop.exit_code

    def step(self) -> dict[str, float]:
        """One optimizer step, or a batch left out because the watch says so; its metrics."""
        start = time.perf_counter()
        progress = self.budget.progress(self.at)
        lr = learning_rate(self.config, self.at.step, progress)
        losses = self._gradients(progress)
        norm = self.optimizer.clip(self._norm())
        if self.watch.judge(losses.main, norm, self._where) is None:
            self._update(losses, lr, progress)
        else:
            self.optimizer.skip()
        for lookout in self._not_finite:
            lookout.clear()
        seconds = self._agreed(time.perf_counter() - start)
        self._saved = None
        self.at.step += 1
        self.at.tokens += losses.tokens
        self.at.elapsed_s += seconds
        count_LE = losses.count_LE.cpu()
        self._count_LE = count_LE if self._count_LE is None else self._count_LE + count_LE
        return self._metrics(losses, norm, lr, seconds)

    def _update(self, losses: Losses, lr: float, progress: float) -> None:
        """Weights, their average and the routing biases."""
        balance, schedule = self.config.balance, self.config.schedule
        self.optimizer.step(lr)
        if losses.count_LE.numel():
            speed = bias_speed(balance, schedule, progress)
            update_biases(self.model, losses.count_LE, speed, balance.bias_rule)

    def _where(self) -> str | None:
        """The first layer of this step that saw a NaN or an infinity; only FP8 layers look."""
        found = self._found()
        return None if found is None else found.what

    def _found(self) -> Found | None:
        return min((f for lookout in self._not_finite if (f := lookout.first(self.model))), default=None)

    def _norm(self) -> Tensor | None:
        """Of all gradients, if others hold some of them."""
        return None

    def _agreed(self, seconds: float) -> float:
        """How long the step took."""
        return seconds

    def _gradients(self, progress: float) -> Losses:
        """Forward and backward over the next batch."""
        balance, schedule = self.config.balance, self.config.schedule
        batch = self.data.next(batch_rows(self.config, progress)).to(self.machine.device)
        return backward(
            self.model,
            batch,
            Weights(mtp_weight(balance, schedule, progress), balance.sequence_loss),
            micro_rows=self.config.micro_batch,
            dtype=self.machine.dtype,
            mask_documents=self.config.mask_documents,
            accumulate=self.optimizer.accumulate,
        )

    def _metrics(self, losses: Losses, norm: float, lr: float, seconds: float) -> dict[str, float]:
        rate = losses.tokens / seconds
        return {
            "train/loss": losses.main,
            "mtp/loss": losses.mtp,
            "moe/sequence_loss": losses.sequence,
            "moe/max_violation": max_violation(losses.count_LE),
            "train/lr": lr,
            "train/grad_norm": norm,
            "train/tokens": self.at.tokens,
            "train/elapsed_s": self.at.elapsed_s,
            "perf/tokens_per_sec": rate,
            "perf/mfu": rate * self._flops / self.machine.peak_flops,
            "stability/skipped": self.watch.skipped,
            "stability/rollbacks": self.watch.counts["rollback"],
        }

    def _step_and_report(self, journal: Journal, live: LiveLine) -> None:
        """A step, its records, and whatever is due after it: a way back, a checkpoint, an evaluation."""
        skipped = self.watch.skipped
        values = self.step()
        step, every, done = self.at.step, self.config.save.every, self.budget.progress(self.at) >= 1.0
        journal.metrics(step, values)
        self.run.last = values
        if self._count_LE is not None and (done or step % self.config.log.every == 0):
            if self._count_LE.numel():
                journal.loads(step, self._count_LE.tolist())
            self._count_LE = None
        if self.watch.skipped > skipped and self.watch.last is not None:
            journal.event(step, *self.watch.last)
        else:
            before = values["train/loss"] if self._smooth is None else self._smooth
            self._smooth = SMOOTHING * before + (1.0 - SMOOTHING) * values["train/loss"]
        if self.watch.exhausted:
            self._go_back(journal, live)
        shown = values if self._smooth is None else values | {"train/loss": self._smooth}
        live.show(step, self.budget.progress(self.at), describe(step, shown, self.budget.eta_s(self.at)))
        if done or (every and step % every == 0):
            self._save(journal)  # before the evaluation: what is saved cannot be lost to it
        self._evaluate(journal, live)

    def _go_back(self, journal: Journal, live: LiveLine) -> None:
        """Take weights, moments, average and biases from the newest intact checkpoint; the data goes on.

        The batches since then are thereby left out (PaLM, arXiv 2204.02311, section 5.1). Raises Diverged if
        there is no checkpoint, or the run may not go back any more.
        """
        watch, step = self.watch, self.at.step
        last = watch.last.detail if watch.last is not None else "an earlier one"
        what = f"{sum(watch.recent)} of the last {len(watch.recent)} steps were left out (the last: {last})"
        saved = None
        if watch.counts["rollback"] < self.config.stability.rollbacks:
            saved = self._newest()
        if saved is None:
            journal.event(step, "diverged", what)
            raise Diverged(f"the run diverged at step {step}: {what}. Fix: {self._way_out()}")
        self._take(saved)
        watch.went_back()
        journal.event(step, "rollback", f"to the weights of {saved.folder.name}: {what}")
        live.say(f"step {step}: {what}; back to the weights of {saved.folder.name}")

    def _newest(self) -> Saved | None:
        """The checkpoint to go back to; None where there is none or every one is damaged."""
        with suppress(DataError):
            return load_newest(self.run.folder)
        return None

    def _way_out(self) -> str:
        """What a person can do about a run that diverged."""
        lower = f"lower train.lr={self.config.lr:g}"
        if not step_folders(self.run.folder / CHECKPOINTS):
            return f"{lower} and start anew; train.save.every would leave checkpoints to go back to"
        more = "" if self.config.stability.rollbacks else ", or set train.stability.rollbacks=1"
        return f"{lower}{more}, and go on from the last checkpoint with --resume auto"

    def _evaluate(self, journal: Journal, live: LiveLine) -> None:
        """Measure on held-out text, if that is due at this step (or at the end) and has not been done."""
        step, every = self.at.step, self.config.log.eval_every
        due = self.budget.progress(self.at) >= 1.0 or (every and step % every == 0)
        wanted = self.run.held_out is not None and step > 0 and bool(due) and journal.evaluated != step
        if not self._everywhere(wanted) or self.run.held_out is None:
            return
        model = self._whole_model()
        if model is None:
            return
        bits = self.run.held_out(model)
        live.say(f"step {step}: {bits:.3f} bits per byte on held-out text")
        journal.evaluation(step, bits, self.run.samples(model) if self.run.samples is not None else [])
        self.run.last = self.run.last | {BITS_PER_BYTE: bits}

    def _everywhere(self, decision: bool) -> bool:
        """What is decided for all ranks."""
        return decision

    def _whole_model(self) -> Transformer | None:
        """What is to be measured here."""
        return self.model

    def _save(self, journal: Journal) -> Path:
        """`save`, with the record of all steps before it on the disk."""
        new = self._saved is None
        journal.flush()
        folder = self.save()
        if new:
            journal.event(self.at.step, "saved", folder.name)
        return folder

    def save(self) -> Path:
        """Write a checkpoint of this step, unless there is one, and drop the oldest."""
        if self._saved is not None:
            return self._saved
        moments, steps = self.optimizer.state()
        self._saved = self._write(self.optimizer.weights(), moments, self.optimizer.averages(), steps)
        return self._saved

    def _write(
        self, state: dict[str, Tensor], moments: dict[str, Tensor], ema: dict[str, Tensor] | None, steps: int
    ) -> Path:
        folder = save_checkpoint(
            self.run.folder,
            self.at.step,
            state=state,
            config=self.model.config,
            tokenizer=self.run.tokenizer,
            training=TrainingState(
                step=self.at.step,
                tokens=self.at.tokens,
                elapsed_s=self.at.elapsed_s,
                loader=self.data.state_dict(),
                recipe=self.run.recipe,
                optimizer=moments,
                ema=ema,
                extra={
                    "optimizer_steps": steps,
                    "watch": self.watch.state_dict(),
                    "loads": None if self._count_LE is None else self._count_LE.tolist(),
                    **self.run.notes,
                },
            ),
        )
        self._damaged.discard(folder)
        prune(self.run.folder, self.config.save.keep, written=folder, damaged=self._damaged)
        return folder

    def resume(self, saved: Saved) -> None:
        """Go on exactly where `save` was."""
        try:
            self._go_on(saved)
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            why = " ".join(str(error).split())
            raise DataError(
                f"{saved.folder}/state cannot be gone on from ({why}). Fix: delete that checkpoint"
            ) from error

    def _go_on(self, saved: Saved) -> None:
        training = saved.training
        self._take(saved)
        self.data.load_state_dict(dict(training.loader))
        self.at = Position(training.step, training.tokens, training.elapsed_s)
        self.watch.load_state_dict(training.extra.get("watch", {}))
        loads = training.extra.get("loads")
        self._count_LE = None if loads is None else torch.tensor(loads)
        self._saved = saved.folder
        self._resumed = "; ".join(
            [f"from {saved.folder.name}", *(f"passed over {text}" for text in saved.passed_over.values())]
        )

    def _take(self, saved: Saved) -> None:
        """Weights, biases, moments and the average of a checkpoint."""
        training = saved.training
        self._damaged |= set(saved.passed_over)
        self.optimizer.load_weights(saved.state)
        self.optimizer.load(training.optimizer, noted(training, "optimizer_steps"), training.ema)
