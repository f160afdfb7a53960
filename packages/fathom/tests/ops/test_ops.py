"""Every fast form equals its plain form, and the published numbers hold."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from fathom.config.model import RopeConfig
from fathom.ops import loss
from fathom.ops.attention import attention, causal_mask, fused_attention, plain_attention
from fathom.ops.experts import can_group, experts_grouped, experts_loop, run_experts
from fathom.ops.loss import IGNORE, cross_entropy, plain_cross_entropy
from fathom.ops.norm import RMSNorm
from fathom.ops.permute import collect, sort_by_expert, spread
from fathom.ops.rope import frequencies, of_channels, rotate, rotate_rows, rotation

V3_ROPE = RopeConfig(factor=40.0)


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_norm_divides_by_the_root_mean_square():
    x = rand(3, 8)
    norm = RMSNorm(8, 1e-6).double()
    norm.weight.data = rand(8, seed=1)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), expected, rtol=1e-12, atol=1e-12)


def test_norm_takes_bf16_statistics_in_fp32():
    x = (rand(4, 512, dtype=torch.float32) * 100).bfloat16()
    norm = RMSNorm(512, 1e-6)
    torch.testing.assert_close(norm(x), norm(x.float()).bfloat16(), rtol=2**-7, atol=0)


@pytest.mark.parametrize(
    "pair,value",
    [(0, 1.0), (5, 0.2371373706), (10, 5.623413252e-2), (11, 3.900692657e-2), (12, 2.687936011e-2),
     (14, 1.244795587e-2), (16, 5.5e-3), (18, 2.249365301e-3), (20, 7.905694150e-4), (22, 1.778279410e-4 / 4),
     (23, 3.333803580e-5), (31, 3.333803580e-6)],
)  # fmt: skip
def test_yarn_frequencies_of_v3(pair, value):
    """Ramp from pair 10 (kept) to pair 23 (divided by 40); report section 4.3."""
    if pair == 22:  # ramp 12/13: theta * (1/40 * 12/13 + 1/13)
        theta = 10000 ** (-44 / 64)
        value = theta * (12 / 13 / 40 + 1 / 13)
    assert frequencies(V3_ROPE, 64, dtype=torch.float64)[pair].item() == pytest.approx(value, rel=1e-9)


def test_yarn_temperature_of_v3_and_v2():
    assert V3_ROPE.logit_factor == pytest.approx(1.8738542071, rel=1e-10)
    assert 192**-0.5 * V3_ROPE.logit_factor == pytest.approx(0.1352337789, rel=1e-9)
    assert V3_ROPE.table_factor == 1.0
    v2 = RopeConfig(factor=40.0, mscale=0.707, mscale_all=0.707)
    assert v2.logit_factor == pytest.approx(1.5896261652, rel=1e-10)


def test_rotation_depends_on_distance_only():
    freq = frequencies(RopeConfig(), 8, dtype=torch.float64)
    q, k = rand(1, 8), rand(1, 8, seed=1)

    def logit(at: int, behind: int) -> float:
        turned = [rotate(x, rotation(freq, torch.tensor([p]))) for x, p in ((q, at), (k, at - behind))]
        return (turned[0] @ turned[1].T).item()

    assert logit(5, 3) == pytest.approx(logit(105, 3), abs=1e-12)
    assert abs(logit(5, 3) - logit(5, 2)) > 1e-3


def test_channels_rotate_in_neighbouring_pairs():
    turn = rotation(torch.tensor([math.pi / 2, 0.0]), torch.tensor([1]))
    turned = rotate(torch.tensor([[1.0, 0.0, 1.0, 0.0]]), turn)
    torch.testing.assert_close(turned, torch.tensor([[0.0, 1.0, 1.0, 0.0]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_rotate_to_the_same_bits(dtype):
    turn = rotation(frequencies(RopeConfig(), 24), torch.arange(50))
    x = rand(50, 24).to(dtype)
    assert torch.equal(rotate_rows(x, of_channels(turn)), rotate(x, turn))


@pytest.mark.parametrize("documents", [None, torch.tensor([[0, 0, 0, 1, 1, 2, -1]] * 2)])
@pytest.mark.parametrize("value_head", [6, 8, 10])
def test_fused_attention_equals_plain(documents, value_head):
    q, k, v = rand(2, 3, 7, 8), rand(2, 3, 7, 8, seed=1), rand(2, 3, 7, value_head, seed=2)
    mask = causal_mask(7, 7, documents)
    plain = plain_attention(q, k, v, 0.3, mask)
    fused = fused_attention(q, k, v, 0.3, None if documents is None else mask)
    torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(attention(q, k, v, 0.3, documents), plain, rtol=1e-10, atol=1e-12)


def test_attention_looks_neither_ahead_nor_into_another_document():
    q, k, v = rand(1, 1, 6, 4), rand(1, 1, 6, 4, seed=1), rand(1, 1, 6, 4, seed=2)
    documents = torch.tensor([[0, 0, 0, 1, 1, 1]])
    before = attention(q, k, v, 1.0, documents)
    k[:, :, 4], v[:, :, 4] = 9.0, -9.0
    after = attention(q, k, v, 1.0, documents)
    changed = (after != before).any(-1)[0, 0].tolist()
    assert changed == [False, False, False, False, True, True]
    k[:, :, 0], v[:, :, 0] = 9.0, -9.0
    assert (attention(q, k, v, 1.0, documents)[:, :, 3:] == after[:, :, 3:]).all()


def experts_case(dtype: torch.dtype, counts: list[int]) -> tuple[torch.Tensor, ...]:
    rows = sum(counts)
    x, weight = rand(rows, 16, dtype=dtype), rand(rows, seed=4, dtype=dtype)
    sizes = [(24, 16), (24, 16), (16, 24)]
    gate, up, down = (rand(len(counts), *s, seed=i, dtype=dtype) for i, s in enumerate(sizes))
    return x, gate, up, down, torch.tensor(counts), weight


@pytest.mark.parametrize("counts", [[5, 0, 3, 9], [0, 0, 0, 1], [4, 4, 4, 4], [17, 0, 0, 0]])
@pytest.mark.parametrize("dtype,tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_grouped_experts_equal_the_loop_with_gradients(counts, dtype, tolerance):
    case = experts_case(dtype, counts)
    leaves = [t.requires_grad_() for i, t in enumerate(case) if i != 4]
    assert can_group(case[0], case[1])
    results = []
    for form in (experts_loop, experts_grouped):
        y = form(*case)
        grads = torch.autograd.grad(y.float().square().sum(), leaves)
        results.append((y, *grads))
    for plain, fast in zip(*results, strict=True):
        scale = plain.abs().max().item() or 1.0
        assert (plain - fast).abs().max().item() <= tolerance * scale


@pytest.mark.parametrize("width,dtype", [(15, torch.float32), (16, torch.float64), (12, torch.bfloat16)])
def test_experts_fall_back_to_the_loop_where_rows_are_not_aligned(width, dtype):
    x, weight = rand(6, width, dtype=dtype), rand(6, dtype=dtype)
    gate, down = rand(2, 8, width, dtype=dtype), rand(2, width, 8, dtype=dtype)
    assert not can_group(x, gate)
    args = (x, gate, gate, down, torch.tensor([2, 4]), weight)
    torch.testing.assert_close(run_experts(*args), experts_loop(*args))


def test_no_rows_give_no_rows():
    args = experts_case(torch.float32, [0, 0, 0])
    assert run_experts(*args).shape == (0, 16)


def test_spread_and_collect_are_each_others_gradient():
    expert_NK = torch.tensor([[2, 0], [1, 2], [0, 2], [2, 1]])
    token_R, row_NK, count_E = sort_by_expert(expert_NK, 3)
    assert count_E.tolist() == expert_NK.flatten().bincount().tolist()
    x, y = rand(4, 3).requires_grad_(), rand(8, 3, seed=1).requires_grad_()
    assert gradcheck(lambda x: spread(x, token_R, row_NK), (x,))
    assert gradcheck(lambda y: collect(y, token_R, row_NK), (y,))
    torch.testing.assert_close(spread(x, token_R, row_NK), x[token_R])
    summed = torch.zeros(4, 3).double().index_add(0, token_R, y)
    torch.testing.assert_close(collect(y, token_R, row_NK), summed)


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("warm", [1, 1 << 19])  # logits at a time within a chunk: of one position, or all
def test_chunked_cross_entropy_equals_plain_with_gradients(chunk, warm, monkeypatch):
    monkeypatch.setattr(loss, "WARM", warm)
    monkeypatch.setattr(loss, "LEAST", 1)
    hidden, head = rand(10, 6).requires_grad_(), rand(13, 6, seed=1).requires_grad_()
    label = torch.tensor([0, 12, IGNORE, 5, 5, IGNORE, 7, 1, 2, 3])
    plain = plain_cross_entropy(hidden, head, label)
    chunked = cross_entropy(hidden, head, label, chunk=chunk)
    torch.testing.assert_close(chunked, plain, rtol=1e-12, atol=1e-12)
    wanted = torch.autograd.grad(plain * 0.7, (hidden, head))
    got = torch.autograd.grad(chunked * 0.7, (hidden, head))
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(cross_entropy(hidden, head, label, chunk=chunk), plain)


def test_cross_entropy_of_bf16_is_summed_in_fp32():
    hidden, head = rand(64, 16, dtype=torch.bfloat16), rand(50, 16, seed=1, dtype=torch.float32)
    label = torch.arange(64) % 50
    total = cross_entropy(hidden.requires_grad_(), head.requires_grad_(), label)
    assert total.dtype == torch.float32
    total.backward()
    assert hidden.grad.dtype == torch.bfloat16 and head.grad.dtype == torch.float32
