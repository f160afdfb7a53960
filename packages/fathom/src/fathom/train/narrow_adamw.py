"""AdamW whose two moments are kept in bf16, beside fp32 weights and gradients (report section 3.3.3).

Four bytes a parameter instead of eight. Arithmetic is in fp32, by torch's fused kernel, a piece at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

PIECE = {"cpu": 1 << 16, "cuda": 1 << 24}  # parameters at a time; on a CPU their moments stay near


class NarrowAdamW(torch.optim.Optimizer):
    """`torch.optim.AdamW(fused=True)`, its state in bf16."""

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, betas: tuple[float, float], eps: float, lr: float = 0.0
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self.grad_scale: Tensor | None = None  # gradients are divided by it

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None, "no closure is called"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.numel():
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            for moment in ("exp_avg", "exp_avg_sq"):
                state[moment] = torch.zeros_like(parameter, dtype=torch.bfloat16)
        assert parameter.grad is not None
        size = PIECE[parameter.device.type]
        flat = (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
        for p, g, m, v in zip(*(t.view(-1).split(size) for t in flat), strict=True):
            wide_m, wide_v = m.float(), v.float()
            adamw(
                [p], [g], [wide_m], [wide_v], [], [state["step"].clone()],
                fused=True, grad_scale=self.grad_scale, amsgrad=False, beta1=group["betas"][0],
                beta2=group["betas"][1], lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"],
                maximize=False,
            )  # fmt: skip
            m.copy_(wide_m)
            v.copy_(wide_v)
        state["step"] += 1
