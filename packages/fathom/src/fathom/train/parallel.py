"""The training loop where many ranks share the network. Rank 0 writes the run's folder; all ranks agree.

The checkpoint is the one that a single process writes, with the whole network in it, so a run may be resumed
on another mesh: rank 0 gathers it, and every rank takes its part of what is loaded. (Networks too large for
one host's memory need sharded checkpoints, which this does not write.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fathom.checkpoint.find import step_folder
from fathom.checkpoint.newest import Saved
from fathom.config.parallel import micro_rows, whole_batch
from fathom.config.train import TrainConfig
from fathom.model.transformer import Transformer
from fathom.parallel.agree import together
from fathom.parallel.group import Line
from fathom.parallel.stage import mine
from fathom.train.live import LiveLine
from fathom.train.log import Journal
from fathom.train.loop import Rows, Run, Trainer
from fathom.train.machine import Machine
from fathom.train.pipeline import Pipeline
from fathom.train.precision import kernels_for
from fathom.train.schedule import batch_rows, bias_speed, mtp_weight
from fathom.train.step import Losses, Weights
from fathom.train.stop import StopSignals

GATHER = 9  # channel of tensors on their way to rank 0


class ParallelTrainer(Trainer):
    """One rank of a run."""

    def __init__(
        self, pipeline: Pipeline, config: TrainConfig, data: Rows, machine: Machine, run: Run
    ) -> None:
        self.pipeline, self.world = pipeline, pipeline.mesh.world
        self._writes = self.world.rank == 0
        run.quiet = run.quiet or not self._writes
        super().__init__(pipeline.model, config, data, machine, run)  # type: ignore[arg-type]

    @contextmanager
    def _folder(self) -> Iterator[None]:
        own = super()._folder() if self._writes else nullcontext()
        with ExitStack() as held:
            together(self.world, lambda: held.enter_context(own))
            yield

    def _gradients(self, progress: float) -> Losses:
        config, parallel = self.config, self.pipeline.parallel
        rows = whole_batch(parallel, config, batch_rows(config, progress))
        balance, schedule = config.balance, config.schedule
        return self.pipeline.backward(
            self.data.next(rows).to(self.machine.device),
            Weights(mtp_weight(balance, schedule, progress), balance.sequence_loss),
            micro_rows=micro_rows(parallel, config, rows),
            dtype=self.machine.dtype,
            mask_documents=config.mask_documents,
            recompute=config.recompute,
            accumulate=self.optimizer.accumulate,
            gradients=lambda _: self._grads(),
        )

    def _grads(self) -> dict[str, Tensor]:
        return self.optimizer.buffers.views(self.optimizer.buffers.grad)

    def _where(self) -> str | None:
        everyone = self.world.gather_objects(self._found())
        found = [(*place, rank) for rank, place in enumerate(everyone) if place is not None]
        if not found:
            return None
        *_, what, rank = min(found)
        return f"{what} (rank {rank})"

    def _norm(self) -> Tensor:
        return self.pipeline.sharing.norm(self._grads())

    def _agreed(self, seconds: float) -> float:
        return max(self.world.gather_objects(seconds))

    def _update(self, losses: Losses, lr: float, progress: float) -> None:
        balance, schedule = self.config.balance, self.config.schedule
        self.optimizer.step(lr)
        speed = bias_speed(balance, schedule, progress)
        self.pipeline.update_biases(losses.count_LE.to(self.machine.device), speed, balance.bias_rule)

    def _signalled(self, stop: StopSignals) -> int | None:
        codes = [code for code in self.world.gather_objects(stop.exit_code) if code is not None]
        return max(codes) if codes else None

    def _journal(self, live: LiveLine) -> Journal:
        make = super()._journal if self._writes else _Silent
        journal: Journal = together(self.world, lambda: make(live))  # type: ignore[assignment]
        return journal

    def _newest(self) -> Saved | None:
        saved = super()._newest()
        found = self.world.gather_objects(None if saved is None else saved.folder.name)
        return saved if all(name == found[0] for name in found) else None

    def _everywhere(self, decision: bool) -> bool:
        return bool(self.world.gather_objects(decision)[0])  # rank 0 knows what has been written

    def _whole_model(self) -> Transformer | None:
        state = self._gather(self.optimizer.weights())
        if not self._writes:
            return None
        kernels = kernels_for(self.config, self.machine)
        model = Transformer(self.model.config, kernels=kernels, seed=None)
        model.load_state_dict(state)
        return model.to(self.machine.device)

    def _write(
        self, state: dict[str, Tensor], moments: dict[str, Tensor], ema: dict[str, Tensor] | None, steps: int
    ) -> Path:
        state, moments = self._gather(state), self._gather(moments)
        ema = None if ema is None else self._gather(ema)
        write, folder = super()._write, step_folder(self.run.folder, self.at.step)
        return together(self.world, lambda: write(state, moments, ema, steps) if self._writes else folder)

    def _gather(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All tensors of the network, whole, on rank 0; elsewhere none. Of copies the lowest rank sends."""
        experts, rank = self.pipeline.mesh.experts.rank, self.world.rank
        told = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in own.items()}
        everyone = self.world.gather_objects([experts, told])
        holders: dict[tuple[str, int], int] = {}
        for holder, (part, names) in enumerate(everyone):
            for name in names:
                holders.setdefault((name, part if _is_stack(name) else 0), holder)
        self.world.open_channels([Line(holder, 0, GATHER) for holder in {*holders.values()} - {0}])
        parts: dict[str, list[Tensor]] = {}
        for (name, _), holder in sorted(holders.items()):
            if holder == rank and rank > 0:
                self.world.send(own[name].detach().contiguous(), 0, GATHER).wait()
            elif rank == 0:
                parts.setdefault(name, []).append(
                    own[name].detach().cpu() if holder == 0 else self._received(name, everyone, holder)
                )
        return {name: torch.cat(some) if len(some) > 1 else some[0] for name, some in parts.items()}

    def _received(self, name: str, everyone: list[list[dict[str, list[Any]]]], holder: int) -> Tensor:
        dtype, *shape = everyone[holder][1][name]
        kind = getattr(torch, dtype.removeprefix("torch."))
        room = torch.empty(shape, dtype=kind, device=self.machine.device)
        return self.world.receive(room, holder, GATHER).wait().cpu()

    def _take(self, saved: Saved) -> None:
        training = saved.training
        ema = None if training.ema is None else self._mine(training.ema)
        part = replace(training, optimizer=self._mine(training.optimizer), ema=ema)
        super()._take(saved._replace(state=self._mine(saved.state), training=part))

    def _mine(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This rank's part of each tensor that it holds."""
        own = self.model.state_dict().keys()
        experts = self.pipeline.experts
        held = {name: name.removeprefix("exp_avg_sq.").removeprefix("exp_avg.") for name in tensors}
        return {name: mine(base, tensors[name], experts) for name, base in held.items() if base in own}


def _is_stack(name: str) -> bool:
    return ".ffn.experts." in name


class _Silent:
    """The journal of a rank that writes nothing."""

    def __init__(self, _: LiveLine) -> None:
        self.evaluated = -1

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def loads(self, step: int, count_LE: object) -> None:
        """Nothing."""

    def event(self, step: int, kind: str, detail: str) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
