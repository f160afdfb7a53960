"""How long a micro-batch computes and travels: FLOPs and bytes over what the cluster reaches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fathom.plan.cluster import Cluster
from fathom.plan.traffic import Traffic
from fathom.plan.work import Work


class Seconds(NamedTuple):
    """Of one micro-batch in some layers.

    inputs, weights    the two parts of the backward's computation
    sent               all-to-alls of forward and backward beside computation
    sent_alone         those of one of the two with nothing beside them
    """

    forward: float = 0.0
    inputs: float = 0.0
    weights: float = 0.0
    sent: float = 0.0
    sent_alone: float = 0.0

    def plus(self, other: Seconds) -> Seconds:
        """Both."""
        return Seconds(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, by: float) -> Seconds:
        """So often."""
        return Seconds(*(by * a for a in self))

    @property
    def computing(self) -> float:
        """Forward and backward."""
        return self.forward + self.inputs + self.weights


def computing(
    works: Iterable[Work], tokens: int, cluster: Cluster, *, fp8: bool, block: bool = True
) -> Seconds:
    """Of kernels. In a block all else (norms, casts, rows in and out of order) goes with the forward and the
    gradients of inputs, as their products do; a lone product has nothing beside it.
    """
    found = Seconds()
    for one in works:
        if one.attention:
            ahead = one.forward / cluster.attention_flops(backward=False)
            back = one.inputs / cluster.attention_flops(backward=True)
            part = Seconds(ahead, back)
        else:
            rate = cluster.matmul_flops(fp8=fp8 and one.fp8)
            part = Seconds(one.forward / rate, (one.inputs + one.again) / rate, one.weights / rate)
        found = found.plus(part)
    other = cluster.other_share * found.computing * block
    shared = found.forward + found.inputs
    return Seconds(
        tokens * (found.forward + other * found.forward / shared),
        tokens * (found.inputs + other * found.inputs / shared),
        tokens * found.weights,
    )


def sending(one: Traffic, tokens: int, cluster: Cluster) -> Seconds:
    """Of one MoE layer: there and back, and in the backward once more; the slower of the two networks."""
    inside = one.devices / cluster.nvlink_bytes_per_s

    def both(dispatch_rate: float, combine_rate: float) -> float:
        there = max(one.nodes / dispatch_rate, inside) * one.dispatch
        return tokens * (there + max(one.nodes / combine_rate, inside) * one.combine)

    beside = both(cluster.dispatch_bytes_per_s, cluster.combine_bytes_per_s)
    return Seconds(sent=2 * beside, sent_alone=both(cluster.ib_bytes_per_s, cluster.ib_bytes_per_s))
