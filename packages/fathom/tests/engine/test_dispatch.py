"""Rows go to the experts they chose and to the shared ones, and come back to their places."""

from __future__ import annotations

import pytest
import torch

from fathom.engine.dispatch import dispatch

ROUTED = 6


@pytest.mark.parametrize("shared", [0, 1, 2])
@pytest.mark.parametrize("rows", [1, 2, 5, 40])
def test_every_row_goes_where_it_chose_and_comes_back_in_the_order_of_its_choice(rows, shared, generator):
    expert_RX = torch.stack([torch.randperm(ROUTED, generator=generator)[:3] for _ in range(rows)])
    x_RD = torch.arange(rows, dtype=torch.float32)[:, None]
    sent = dispatch(expert_RX, ROUTED, ROUTED + shared)
    parts = sent.spread(x_RD)
    assert [len(part) for part in parts] == sent.counts
    tagged = torch.cat([100.0 * e + part for e, part in zip(sent.count_of, parts, strict=True)])
    chosen = torch.cat((expert_RX, torch.arange(ROUTED, ROUTED + shared).expand(rows, -1)), dim=1)
    assert torch.equal(tagged[sent.row_RK, 0], 100.0 * chosen + x_RD)


def test_experts_nobody_chose_are_not_asked():
    sent = dispatch(torch.tensor([[5, 0], [5, 2]]), ROUTED, ROUTED + 1)
    assert sent.count_of == {0: 1, 2: 1, 5: 2, 6: 2}
    assert dispatch(torch.tensor([[5, 0]]), ROUTED, ROUTED).count_of == {5: 1, 0: 1}
