"""The training loop: steps until the budget is spent, saved so that it can go on bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from fathom.checkpoint.find import prune, step_folder
from fathom.checkpoint.save import save_checkpoint
from fathom.checkpoint.training import TrainingState
from fathom.config.counts import flops_per_token
from fathom.config.errors import DataError, need
from fathom.config.train import TrainConfig
from fathom.data.batch import Batch
from fathom.model.transformer import Transformer
from fathom.train.balance import max_violation, update_biases
from fathom.train.budget import Budget, Position
from fathom.train.log import LiveLine, Metrics, describe
from fathom.train.machine import Machine
from fathom.train.optimizer import Optimizer
from fathom.train.schedule import batch_rows, bias_speed, learning_rate, mtp_weight
from fathom.train.step import Losses, Weights, backward
from fathom.train.stop import Diverged, Stopped, StopSignals, only_run_in

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
    tokenizer: Path  # folder whose tokenizer files every checkpoint carries
    title: str = "train"
    quiet: bool = False
    held_out: Callable[[Transformer], float] | None = None  # bits per byte
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
        self.optimizer = Optimizer(model, config.optim)
        self._flops = flops_per_token(model.config, config.seq_len)
        self._saved: Path | None = None  # the checkpoint of this very step
        self._smooth: float | None = None  # the loss as the live line shows it

    def train(self) -> Position:
        """Step until the budget is spent, save, and return where that was.

        Raises Stopped (130 or 75) after a signal, with the run saved; Diverged (3) if the loss is not finite.
        """
        begun = self.at.step
        with only_run_in(self.run.folder):
            self._train(begun)
        return self.at

    def _train(self, begun: int) -> None:
        metrics = Metrics(self.run.folder, step=begun)
        try:
            with (
                StopSignals() as stop,
                LiveLine(self.run.title, every=self.config.log.every, quiet=self.run.quiet) as live,
            ):
                live.say(f"{self.run.title}: {self.machine.describe()}")
                while self.budget.progress(self.at) < 1.0:
                    self._step_and_report(metrics, live)
                    self._heed(stop)
                if self.at.step > begun:
                    self._finish(metrics, live)
                self._heed(stop)
        finally:
            metrics.close()

    def _heed(self, stop: StopSignals) -> None:
        """Save and raise Stopped if a signal has come."""
        if stop.exit_code is not None:
            folder = self.save()
            goes_on = "the same command goes on (train and sft: with --resume auto)"
            raise Stopped(f"stopped at step {self.at.step}, saved {folder}; {goes_on}", stop.exit_code)

    def step(self) -> dict[str, float]:
        """One optimizer step; its metrics."""
        start = time.perf_counter()
        progress = self.budget.progress(self.at)
        lr = learning_rate(self.config, self.at.step, progress)
        losses = self._gradients(progress)
        norm = self.optimizer.clip()
        if not (math.isfinite(losses.main) and math.isfinite(norm)):
            raise Diverged(
                f"the loss at step {self.at.step + 1} is {losses.main} (gradient norm {norm}). Fix: lower "
                f"train.lr={self.config.lr:g} and resume from the last checkpoint in {self.run.folder}"
            )
        self.optimizer.step(lr)
        balance, schedule = self.config.balance, self.config.schedule
        if losses.count_LE.numel():
            speed = bias_speed(balance, schedule, progress)
            update_biases(self.model, losses.count_LE, speed, balance.bias_rule)
        seconds = time.perf_counter() - start
        self._saved = None
        self.at.step += 1
        self.at.tokens += losses.tokens
        self.at.elapsed_s += seconds
        return self._metrics(losses, norm, lr, seconds)

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
        }

    def _step_and_report(self, metrics: Metrics, live: LiveLine) -> None:
        values = self.step()
        c, step = self.config, self.at.step
        if c.save.every and step % c.save.every == 0:
            self.save()  # before the evaluation: what is saved cannot be lost to it
        if c.log.eval_every and step % c.log.eval_every == 0:
            values |= self._held_out(live)
        metrics.write(step, values)
        self.run.last = values
        before = values["train/loss"] if self._smooth is None else self._smooth
        self._smooth = SMOOTHING * before + (1.0 - SMOOTHING) * values["train/loss"]
        line = describe(step, values | {"train/loss": self._smooth}, self.budget.eta_s(self.at))
        live.show(step, self.budget.progress(self.at), line)

    def _held_out(self, live: LiveLine) -> dict[str, float]:
        if self.run.held_out is None:
            return {}
        bpb = self.run.held_out(self.model)
        live.say(f"step {self.at.step}: {bpb:.3f} bits per byte on held-out text")
        return {"val/bpb": bpb}

    def _finish(self, metrics: Metrics, live: LiveLine) -> None:
        live.say(f"saved {self.save()}")
        final = self._held_out(live)
        if final:
            metrics.write(self.at.step, final)
            self.run.last |= final

    def save(self) -> Path:
        """Write a checkpoint of this step, unless there is one, and drop the oldest."""
        if self._saved is not None:
            return self._saved
        moments, steps = self.optimizer.state()
        folder = save_checkpoint(
            self.run.folder,
            self.at.step,
            state=self.model.state_dict(),
            config=self.model.config,
            tokenizer=self.run.tokenizer,
            training=TrainingState(
                step=self.at.step,
                tokens=self.at.tokens,
                elapsed_s=self.at.elapsed_s,
                loader=self.data.state_dict(),
                recipe=self.run.recipe,
                optimizer=moments,
                ema=self.optimizer.averages(self.model),
                extra={"optimizer_steps": steps, **self.run.notes},
            ),
        )
        prune(self.run.folder, self.config.save.keep, written=folder)
        self._saved = folder
        return folder

    def resume(self, state: Mapping[str, torch.Tensor], training: TrainingState) -> None:
        """Go on exactly where `save` was."""
        self.model.load_state_dict(dict(state))
        self.optimizer.load(training.optimizer, noted(training, "optimizer_steps"), training.ema)
        self.data.load_state_dict(dict(training.loader))
        self.at = Position(training.step, training.tokens, training.elapsed_s)
        self._saved = step_folder(self.run.folder, training.step)
