"""A step's losses and gradients where many ranks share the network: `fathom.train.step`, in parallel.

Every rank has the whole batch (it is small) and takes its rows of it. Afterwards every copy of a parameter
has the gradient of the whole batch, in the same bits wherever it lies.

Axes:  B rows   T positions   L MoE layers, MTP's last   E experts
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fathom.config.model import ModelConfig
from fathom.config.parallel import ParallelConfig
from fathom.data.batch import Batch
from fathom.model.experts import Dispatch, LocalDispatch, MoE
from fathom.model.mtp import MTPModule
from fathom.ops.fp8.kernels import Fp8Kernels
from fathom.ops.kernels import Kernels
from fathom.ops.loss import IGNORE
from fathom.parallel.dispatch import AllToAll
from fathom.parallel.exchange import PLAIN, Nodes, held
from fathom.parallel.executor import Executor, lines, one_room
from fathom.parallel.mesh import Mesh
from fathom.parallel.payload import BF16, FP8
from fathom.parallel.stage import MAIN, MTP, SEQUENCE, Micro, Stage, Stages, Step
from fathom.schedule.build import build
from fathom.schedule.op import Schedule
from fathom.train.balance import update_bias
from fathom.train.gradients import Sharing, collect_gradients
from fathom.train.step import Losses, Weights, labels, micro_batches


class Pipeline:
    """This rank's stages and how a batch goes through them."""

    def __init__(self, config: ModelConfig, parallel: ParallelConfig, mesh: Mesh, kernels: Kernels) -> None:
        """Build the stages that this rank holds; their weights are not filled."""
        self.config, self.parallel, self.mesh = config, parallel, mesh
        own = self._schedule(parallel.fewest_micros).stages_of(mesh.pipeline.rank)
        dispatch: Dispatch = LocalDispatch(kernels.row_multiple, kernels.spread)
        if parallel.ep > 1:
            nodes = Nodes(mesh.experts, mesh.across, mesh.within)
            fp8 = isinstance(kernels, Fp8Kernels)
            dispatch = AllToAll(
                nodes,
                row_multiple=kernels.row_multiple,
                dispatch=FP8() if fp8 else PLAIN,  # what experts would make of rows anyway
                combine=BF16() if fp8 else PLAIN,
            )
        self.dispatch = dispatch
        self.model = Stages(config, parallel.stages, own, kernels, dispatch)
        self.sharing = Sharing(self.model, mesh)
        mesh.pipeline.open_channels(lines(self._schedule(parallel.fewest_micros)))
        moe = [i for i in range(config.num_layers + config.mtp.depth) if config.is_moe(i)]
        self.experts = held(mesh.experts, config.moe.num_experts) if moe else range(0)  # of each layer, here
        self._place = {layer: place for place, layer in enumerate(moe)}

    def backward(
        self,
        batch: Batch,
        weights: Weights,
        *,
        micro_rows: int = 0,
        dtype: torch.dtype | None = None,
        mask_documents: bool = False,
        recompute: bool = False,
        accumulate: Callable[[], None] = lambda: None,
        gradients: Callable[[Stages], Mapping[str, Tensor]] = collect_gradients,
    ) -> Losses:
        """As `step.backward` of the whole model on one rank; every rank returns the same losses.

        accumulate   called after whatever adds gradients of weights
        gradients    where they have been added up, by name; summed over ranks there
        """
        dtype = dtype or next(self.model.parameters()).dtype
        step = self._step(batch, weights, micro_rows, dtype, mask_documents)
        step.recompute = recompute
        self.model.loads.clear()
        schedule, stages = self._schedule(len(step.micros)), self.parallel.stages
        B, T = step.micros[0].token_BT.shape
        Executor(
            schedule,
            self.mesh.pipeline,
            {s: Stage(self.model, s, stages, step) for s in self.model.held},
            one_room((B, T, self.config.hidden_size), dtype, batch.token_BT1.device),
            after=accumulate,
        ).run()
        self.sharing.sum_gradients(gradients(self.model))
        return self._losses(step, batch)

    def update_biases(self, count_LE: Tensor, speed: float, rule: str) -> None:
        """Those of this rank's routers, by the loads of all ranks."""
        own = [(layer, self.model.block(layer)) for part in self.model.layers_of.values() for layer in part]
        if self.model.last:
            modules = (m for m in self.model.mtp if isinstance(m, MTPModule))
            own += [(self.config.num_layers + k, m.block) for k, m in enumerate(modules)]
        for layer, block in own:
            if isinstance(block.ffn, MoE) and block.ffn.router.moe.score == "sigmoid":
                update_bias(block.ffn.router.bias, count_LE[self._place[layer]], speed, rule)

    def _schedule(self, micros: int) -> Schedule:
        return build(self.parallel.schedule, self.parallel.pp, micros)

    def _step(
        self, batch: Batch, weights: Weights, micro_rows: int, dtype: torch.dtype, mask_documents: bool
    ) -> Step:
        """This rank's rows, cut into micro-batches."""
        ranks, stop = self.mesh.tokens.size, mask_documents or self.config.mtp.mask_borders
        assert len(batch) % ranks == 0, f"{len(batch)} rows for {ranks} ranks"
        rows = len(batch) // ranks
        mine = batch.take(slice(self.mesh.tokens.rank * rows, (self.mesh.tokens.rank + 1) * rows))
        micros = [
            Micro(
                part.token_BT1[:, :-1],
                part.segment_BT1[:, :-1],
                labels(part, self.config.mtp.depth, stop_at_borders=stop),
                len(part) / len(batch),
            )
            for part in micro_batches(mine, micro_rows)
        ]
        return Step(
            micros=micros,
            targets=int((labels(batch, 0, stop_at_borders=stop)[0] != IGNORE).sum()),
            mtp=weights.mtp,
            sequence=weights.sequence,
            dtype=dtype,
            mask_documents=mask_documents,
        )

    def _losses(self, step: Step, batch: Batch) -> Losses:
        """Of all ranks."""
        layers = len(self._place)
        count_LE = torch.zeros(layers, self.config.moe.num_experts if layers else 0, dtype=torch.int64)
        for layer, count_E in self.model.loads.items():
            count_LE[self._place[layer]] = count_E.cpu()
        device = batch.token_BT1.device
        count_LE = self.mesh.world.all_reduce(count_LE.to(device)).wait().cpu()
        sums: Tensor = self.mesh.world.all_reduce(step.sums.to(device)).wait()
        main, mtp, sequence = (sums[what].item() for what in (MAIN, MTP, SEQUENCE))
        read = int((batch.segment_BT1[:, :-1] >= 0).sum())
        return Losses(main, mtp, sequence / max(len(self._place), 1), count_LE, read)
