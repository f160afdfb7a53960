"""Which ranks hold copies of a parameter, and what follows: sums of gradients, and the norm of all of them.

    a matrix or gain      on every rank that sees tokens of its stage
    a stack of experts    on the replicas of this rank's slice
    under DualPipe both   on the mirrored pipeline rank too, which runs the same stages the other way
    the embedding         on the first and the last rank, where those are two and MTP embeds tokens
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from fathom.ops.experts import Experts
from fathom.parallel.group import Group, Handle
from fathom.parallel.mesh import Mesh
from fathom.parallel.stage import Stages

BUCKET = 1 << 24  # elements that are summed in one call
UNDER_WAY = 3  # buckets: more would only be copies of gradients
NORM_CHUNK = 1 << 16  # elements; larger sums of squares lose digits in fp32


class Sharing:
    """The parameters of one rank by who else holds them. Gradients come by name, one for every parameter."""

    def __init__(self, model: Stages, mesh: Mesh) -> None:
        self._mesh = mesh
        stacks = [m for m in model.modules() if isinstance(m, Experts)]
        stacked = {id(p) for m in stacks for p in m.parameters(recurse=False)}
        own = dict(model.named_parameters())
        self._experts = [name for name, p in own.items() if id(p) in stacked]
        self._dense = [name for name, p in own.items() if id(p) not in stacked]
        self._tied = ["embed.weight"] if mesh.ends is not None and model.tied else []

    def sum_gradients(self, grads: Mapping[str, Tensor]) -> None:
        """Add up, in place, what ranks made of their own rows."""
        mesh = self._mesh
        _sum(mesh.tokens, [grads[name] for name in self._dense])
        _sum(mesh.replicas, [grads[name] for name in self._experts])
        if mesh.mirror is not None:
            _sum(mesh.mirror, [grads[name] for name in (*self._dense, *self._experts)])
        if mesh.ends is not None:
            _sum(mesh.ends, [grads[name] for name in self._tied])

    def norm(self, grads: Mapping[str, Tensor]) -> Tensor:
        """L2 norm of the summed gradients of the whole network, each counted once; alike on all ranks."""
        mesh = self._mesh
        copies = mesh.mirror.size if mesh.mirror is not None else 1
        total = torch.zeros((), dtype=torch.float64)
        for names, holders in ((self._dense, mesh.tokens.size), (self._experts, mesh.replicas.size)):
            for name in names:
                total += _square(grads[name]) / (holders * copies * (2 if name in self._tied else 1))
        device = grads[self._dense[0]].device
        return mesh.world.all_reduce(total.to(device)).wait().sqrt()


def _square(grad: Tensor) -> Tensor:
    parts = torch.stack([part.square().sum() for part in grad.flatten().split(NORM_CHUNK)])
    return parts.double().sum().cpu()


def _sum(group: Group, grads: Iterable[Tensor]) -> None:
    if group.size == 1:
        return
    under_way: deque[tuple[list[Tensor], Handle[Tensor]]] = deque()

    def finish() -> None:
        bucket, handle = under_way.popleft()
        for grad, part in zip(bucket, handle.wait().split([g.numel() for g in bucket]), strict=True):
            grad.copy_(part.view_as(grad))

    for bucket in _buckets(grads):
        if len(under_way) == UNDER_WAY:
            finish()
        under_way.append((bucket, group.all_reduce(torch.cat([grad.flatten() for grad in bucket]))))
    while under_way:
        finish()


def _buckets(grads: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype, up to BUCKET elements together."""
    bucket: list[Tensor] = []
    for grad in grads:
        full = sum(g.numel() for g in bucket) + grad.numel() > BUCKET
        if bucket and (full or bucket[0].dtype != grad.dtype):
            yield bucket
            bucket = []
        bucket.append(grad)
    if bucket:
        yield bucket


def collect_gradients(model: Stages) -> dict[str, Tensor]:
    """Every parameter's gradient as autograd left it; zeros where it left none."""
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
