"""Attention over pages of latents: absorbed for rows that are decoded, expanded for chunks of a prompt.

Every product below has a shape that depends on the network and the page alone, every sum over positions goes
page by page in their order, and widths are filled up with zeros to multiples of WIDTH. So a row has the same
bits in any company, in any chunk, after any preemption.

Axes:  R rows   H heads   N no-position head   P rope head   K = N+P   V value head   C kv latent   E = C+P
       G pages of the pool   S positions of a page   J (row, page) pairs   A pages of a sequence   Q tiles
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fathom.config.model import AttentionConfig
from fathom.engine.weights import Attention
from fathom.ops.attention import causal_mask
from fathom.ops.norm import wide
from fathom.ops.products import WIDTH, fill
from fathom.ops.rowwise import max_runs, sum_runs

ROW_TILE = 8  # rows of one product with each head's part of W^UK or W^UV
MOST_ELEMENTS = 1 << 24  # of the largest intermediate: more rows are taken in turns


class Pairs(NamedTuple):
    """Which row looks at which page; all pages of a row are neighbours, in order of position."""

    row_J: Tensor
    page_J: Tensor  # ids in the pool
    hidden_J1S: Tensor  # bool: positions behind the row's own
    start_R: Tensor  # first pair of each row
    pages_of: list[int]  # how many pages each row has


class Chunk(NamedTuple):
    """Neighbouring positions of one prompt, from a page's start on."""

    first: int  # row of its first position
    count: int  # type: ignore[assignment]  # hides a method of tuples that nobody calls
    page_A: Tensor  # pages from position 0 to the chunk's end
    before: int  # of them, those that end before the chunk


def absorb(q_RHN: Tensor, up_k_HNC: Tensor) -> Tensor:
    """Queries as latents: W^UK moves to the query (report 2.1.2 of arXiv 2405.04434). -> [R, H, filled C]."""
    return _per_head(q_RHN, up_k_HNC)


def release(z_RHC: Tensor, up_v_HCV: Tensor) -> Tensor:
    """Latents as values: W^UV moves to the output. -> [R, H, filled V]."""
    return _per_head(z_RHC, up_v_HCV)


def _per_head(x_RHX: Tensor, weight_HXY: Tensor) -> Tensor:
    """Each head's own product, ROW_TILE rows at a time; both widths of the weight are filled up."""
    (R, H, X), filled = x_RHX.shape, weight_HXY.shape[1]
    tiles = []
    for rows_rHX in x_RHX.split(ROW_TILE):
        tile_HRX = rows_rHX.new_zeros(H, ROW_TILE, filled)
        tile_HRX[:, : len(rows_rHX), :X] = rows_rHX.transpose(0, 1)
        tiles.append(torch.bmm(tile_HRX, weight_HXY))
    y_HRY = tiles[0] if len(tiles) == 1 else torch.cat(tiles, dim=1)
    return y_HRY[:, :R].transpose(0, 1)


def decode_attention(q_RHE: Tensor, pool_GSE: Tensor, pairs: Pairs, scale: float, rank: int) -> Tensor:
    """Each row over its own pages, latents used as they are (one key for all heads). -> [R, H, C]."""
    H, C = q_RHE.shape[1], rank
    parts = []
    for rows, some in _in_turns(pairs, MOST_ELEMENTS // (H * max(C, pool_GSE.shape[1]))):
        parts.append(_decode(q_RHE[rows], pool_GSE, some, scale, C))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _decode(q_RHE: Tensor, pool_GSE: Tensor, pairs: Pairs, scale: float, C: int) -> Tensor:
    if len(pairs.row_J) == 1:
        return _decode(q_RHE.repeat(2, 1, 1), pool_GSE, _twice(pairs), scale, C)[:1]
    k_JSE = pool_GSE.index_select(0, pairs.page_J)
    several = len(pairs.row_J) > len(q_RHE)  # some row has more than one page
    q_JHE = q_RHE.index_select(0, pairs.row_J) if several else q_RHE
    score_JHS = wide(torch.bmm(q_JHE, k_JSE.transpose(1, 2))).mul_(scale)
    score_JHS.masked_fill_(pairs.hidden_J1S, -torch.inf)
    best_RH = max_runs(score_JHS.amax(-1), pairs.start_R)
    best_JH = best_RH.index_select(0, pairs.row_J) if several else best_RH
    weight_JHS = score_JHS.sub_(best_JH[..., None]).exp_()
    z_JHC = torch.bmm(weight_JHS.to(k_JSE.dtype), k_JSE[..., : C + -C % WIDTH])
    total_RH = sum_runs(weight_JHS.sum(-1), pairs.start_R)
    z_RHC = sum_runs(wide(z_JHC), pairs.start_R) / total_RH[..., None]
    return z_RHC[..., :C].to(q_RHE.dtype)


def _twice(pairs: Pairs) -> Pairs:
    """A lone pair as two alike: threads cut the rows of a lone product up, and never those of several."""
    page_J, hidden_J1S = pairs.page_J.repeat(2), pairs.hidden_J1S.repeat(2, 1, 1)
    both = torch.arange(2, device=page_J.device)
    return Pairs(both, page_J, hidden_J1S, both, [1, 1])


def _in_turns(pairs: Pairs, most: int) -> Iterator[tuple[slice, Pairs]]:
    """The pairs of a few rows at a time, so that not much more than `most` pairs are under way."""
    R = len(pairs.pages_of)
    if len(pairs.row_J) <= most or R == 1:
        yield slice(0, R), pairs
        return
    first, begun = 0, 0
    while first < R:
        last, size = first + 1, pairs.pages_of[first]
        while last < R and size + pairs.pages_of[last] <= most:
            size += pairs.pages_of[last]
            last += 1
        part, rows = slice(begun, begun + size), slice(first, last)
        yield rows, Pairs(
            pairs.row_J[part] - first,
            pairs.page_J[part],
            pairs.hidden_J1S[part],
            pairs.start_R[rows] - begun,
            pairs.pages_of[rows],
        )
        first, begun = last, begun + size


def prefill_attention(
    q_RHK: Tensor, pool_GSE: Tensor, chunk: Chunk, weights: Attention, shape: AttentionConfig, scale: float
) -> Tensor:
    """A chunk of a prompt over all positions before and in it, keys and values expanded. -> [count, H, V]."""
    H, N, V, C = shape.num_heads, shape.nope_head, shape.value_head, shape.kv_rank
    held_ASE = pool_GSE.index_select(0, chunk.page_A)
    A, S = held_ASE.shape[:2]
    kv_ASHX = weights.kv_up(held_ASE[..., :C].reshape(A * S, C)).view(A, S, H, N + V)
    k_ASHN, v_ASHV = kv_ASHX.split((N, V), dim=-1)
    k_ASHP = held_ASE[:, :, None, C : C + shape.rope_head].expand(-1, -1, H, -1)
    k_AHKS = fill(torch.cat((k_ASHN, k_ASHP), dim=-1)).permute(0, 2, 3, 1).contiguous()
    v_AHSV = fill(v_ASHV).transpose(1, 2).contiguous()
    mine = fill(q_RHK[chunk.first : chunk.first + chunk.count])
    filled = F.pad(mine, (0, 0, 0, 0, 0, -chunk.count % S))
    q_QHSK = filled.unflatten(0, (-1, S)).transpose(1, 2).contiguous()
    tiles = [
        _tile(q_HSK, k_AHKS[: chunk.before + i + 1], v_AHSV, scale) for i, q_HSK in enumerate(q_QHSK)
    ]
    o_HRV = torch.cat(tiles, dim=1)[:, : chunk.count, :V]
    return o_HRV.transpose(0, 1)


def _tile(q_HSK: Tensor, k_AHKS: Tensor, v_AHSV: Tensor, scale: float) -> Tensor:
    """One page of queries over the pages up to its own, of which it sees the triangle. -> [H, S, V]."""
    score_AHSS = torch.stack([torch.bmm(q_HSK, k_HKS) for k_HKS in k_AHKS])
    score_AHSS = wide(score_AHSS).mul_(scale)
    S = q_HSK.shape[1]
    score_AHSS[-1].masked_fill_(~causal_mask(S, S, device=q_HSK.device), -torch.inf)
    best_HS = score_AHSS.amax(dim=(0, 3), keepdim=True)
    weight_AHSS = score_AHSS.sub_(best_HS).exp_()
    total_AHS = weight_AHSS.sum(-1)
    weight_AHSS = weight_AHSS.to(v_AHSV.dtype)
    total_HS, o_HSV = total_AHS[0], wide(torch.bmm(weight_AHSS[0], v_AHSV[0]))
    for part_HS, weight_HSS, v_HSV in zip(total_AHS[1:], weight_AHSS[1:], v_AHSV[1:], strict=False):
        total_HS = total_HS + part_HS
        o_HSV = o_HSV + torch.bmm(weight_HSS, v_HSV)
    return (o_HSV / total_HS[..., None]).to(q_HSK.dtype)
