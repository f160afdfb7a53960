"""Exactness with as many threads as a laptop has: the other tests run on one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fathom.engine.attention import Pairs, decode_attention

PAGE, LATENT = 16, 48


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("heads", range(1, 17))
def test_a_row_alone_attends_as_it_does_among_others(two_threads: None, heads: int) -> None:
    """Each row on one page: a lone batched product is shared out among threads, several are not."""
    draw = torch.Generator().manual_seed(heads)
    q = torch.randn(9, heads, LATENT + PAGE, generator=draw)
    pool = torch.randn(9, PAGE, LATENT + PAGE, generator=draw)
    together = decode_attention(q, pool, pairs(range(9)), 0.1, LATENT)
    for row in range(9):
        alone = decode_attention(q[row : row + 1], pool, pairs([row]), 0.1, LATENT)
        assert torch.equal(alone[0], together[row])


def pairs(pages: range | list[int]) -> Pairs:
    """One page a row, of which it sees the first part."""
    seen = torch.tensor([3 + page % 7 for page in pages])
    hidden = torch.arange(PAGE)[None, None] > seen[:, None, None]
    rows = torch.arange(len(pages))
    return Pairs(rows, torch.tensor(list(pages)), hidden, rows, [1] * len(pages))
