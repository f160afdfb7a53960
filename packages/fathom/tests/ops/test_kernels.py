"""The fast kernels equal the plain ones in values and gradients, and add in place where they should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck

from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig, RopeConfig
from fathom.data.batch import Batch
from fathom.model.transformer import Transformer
from fathom.ops import blocked_attention as blocked
from fathom.ops.allocator import large_pages
from fathom.ops.attention import causal_mask, plain_attention
from fathom.ops.deferred import WeightGradients
from fathom.ops.experts import Experts, experts_loop
from fathom.ops.kernels import FastKernels, PlainKernels, choose_kernels
from fathom.ops.linear import FastLinear, Linear
from fathom.ops.loss import cross_entropy
from fathom.ops.matmul import multiplies_bf16
from fathom.ops.norm import FastRMSNorm, RMSNorm
from fathom.ops.padded_experts import PaddedExperts
from fathom.ops.permute import collect, sort_by_expert, spread
from fathom.ops.rope import fast_rotate, frequencies, rotate, rotation
from fathom.train.step import Weights, backward


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_gradients(form, *leaves: torch.Tensor) -> list[torch.Tensor]:
    """The value and the gradients of a sum that weighs every element differently."""
    leaves = tuple(leaf.detach().requires_grad_() for leaf in leaves)
    y = form(*leaves)
    return [y.detach(), *torch.autograd.grad((y * rand(*y.shape, seed=99, dtype=y.dtype)).sum(), leaves)]


def assert_same(fast: list[torch.Tensor], plain: list[torch.Tensor], tolerance: float = 1e-11) -> None:
    for a, b in zip(fast, plain, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert (a - b).abs().max().item() <= tolerance * b.abs().max().item()


DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2, -1, -1], [5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5]])


@pytest.mark.parametrize("documents", [None, DOCUMENTS])
@pytest.mark.parametrize("queries", [1, 4, 11, 64])
@pytest.mark.parametrize("keep", [0, 1 << 20])
@pytest.mark.parametrize("tile", [0, 1 << 20])  # one row of the batch at a time, or all
def test_blocked_attention_equals_plain(documents, queries, keep, tile, monkeypatch):
    monkeypatch.setattr(blocked, "TILE_BYTES", tile)
    monkeypatch.setattr(blocked, "BLOCK_ELSE", queries)
    monkeypatch.setattr(blocked, "KEEP_BYTES", keep)
    q, k, v = rand(2, 3, 11, 8), rand(2, 3, 11, 8, seed=1), rand(2, 3, 11, 6, seed=2)
    mask = causal_mask(11, 11, documents)
    fast = with_gradients(lambda *x: blocked.blocked_attention(*x, 0.3, documents), q, k, v)
    assert_same(fast, with_gradients(lambda *x: plain_attention(*x, 0.3, mask), q, k, v))


def test_blocked_attention_of_bf16_is_as_near_to_the_truth_as_plain():
    shapes = [(1, 2, 300, 32), (1, 2, 300, 32), (1, 2, 300, 16)]
    exact = [rand(*shape, seed=i) for i, shape in enumerate(shapes)]
    mask = causal_mask(300, 300)
    truth = with_gradients(lambda *x: plain_attention(*x, 0.2, mask), *exact)
    narrow = [t.bfloat16() for t in exact]
    fast = with_gradients(lambda *x: blocked.blocked_attention(*x, 0.2), *narrow)
    plain = with_gradients(lambda *x: plain_attention(*x, 0.2, mask), *narrow)
    for f, p, t in zip(fast, plain, truth, strict=True):
        assert (f - t).norm() <= 1.3 * (p - t).norm()


def test_norm_and_rotation_equal_their_plain_forms():
    x, weight = rand(2, 5, 8), rand(8, seed=1)
    plain, fast = RMSNorm(8, 1e-5).double(), FastRMSNorm(8, 1e-5).double()

    def through(norm):
        return lambda x, w: torch.func.functional_call(norm, {"weight": w}, (x,))

    assert_same(with_gradients(through(fast), x, weight), with_gradients(through(plain), x, weight))
    turn = rotation(frequencies(RopeConfig(), 8, dtype=torch.float64), torch.arange(5))
    assert_same(
        with_gradients(lambda x: fast_rotate(x, turn), x), with_gradients(lambda x: rotate(x, turn), x)
    )
    assert gradcheck(lambda x: fast_rotate(x, turn), (x.requires_grad_(),))


def test_a_slice_that_begins_at_an_odd_place_can_be_turned():
    """One position of one row counts as contiguous wherever it begins: a decoding step with an odd latent."""
    x = rand(1, 1, 39)[..., 31:]
    turn = rotation(frequencies(RopeConfig(), 8, dtype=torch.float64), torch.arange(1))
    torch.testing.assert_close(fast_rotate(x, turn), rotate(x, turn), rtol=1e-12, atol=1e-12)


def test_what_is_frozen_gets_no_gradient():
    x, head = rand(4, 6).requires_grad_(), torch.nn.Parameter(rand(9, 6))
    experts = PaddedExperts(2, 6, 8, WeightGradients()).double()
    for i, p in enumerate((*experts.parameters(), head)):
        p.data, p.requires_grad = rand(*p.shape, seed=i), False
        p.grad = torch.zeros_like(p)
    y = experts(x, torch.tensor([1, 3]), torch.ones(4, dtype=torch.float64))
    (cross_entropy(y, head, torch.arange(4)) + y.square().sum()).backward()
    assert x.grad.any() and not any(p.grad.any() for p in (*experts.parameters(), head))


def experts_case(counts: list[int]) -> tuple[torch.Tensor, ...]:
    sizes = [(24, 16), (24, 16), (16, 24)]
    stacked = [rand(len(counts), *size, seed=i) for i, size in enumerate(sizes)]
    return rand(sum(counts), 16, seed=5), *stacked, rand(sum(counts), seed=6)


@pytest.mark.parametrize("counts", [[5, 0, 3, 9], [0, 0, 0, 1], [32, 0, 64, 32], [17, 0, 0, 0]])
def test_padded_experts_equal_the_loop(counts):
    count_E = torch.tensor(counts)
    module = PaddedExperts(len(counts), 16, 24, WeightGradients()).double()

    def fast(x, gate, up, down, weight):
        return torch.func.functional_call(
            module, {"gate": gate, "up": up, "down": down}, (x, count_E, weight)
        )

    def plain(x, gate, up, down, weight):
        return experts_loop(x, gate, up, down, count_E, weight)

    case = experts_case(counts)
    assert_same(with_gradients(fast, *case), with_gradients(plain, *case))


@pytest.mark.parametrize("multiple", [1, 4, 32])
def test_rows_that_fill_up_change_nothing(multiple):
    """Rows of each expert become a multiple; what fills up has weight 0 and is nobody's row."""
    expert_NK = torch.tensor([[2, 0], [1, 2], [0, 2], [2, 1], [4, 2]])
    token_R, row_NK, count_E = sort_by_expert(expert_NK, 5, multiple)
    assert (count_E % multiple == 0).all() and count_E.sum() == len(token_R)
    used = row_NK.flatten().bincount(minlength=len(token_R))
    assert used.sum() == 10 and used.max() == 1
    first_E = count_E.cumsum(0) - count_E
    of_row = torch.repeat_interleave(torch.arange(5), count_E)
    assert (of_row[row_NK] == expert_NK).all() and (token_R[row_NK] == torch.arange(5)[:, None]).all()
    assert [int(first) for first, n in zip(first_E, count_E, strict=True) if n] == [
        int((of_row == e).nonzero()[0]) for e in range(5) if count_E[e]
    ]
    x, y = rand(5, 3), rand(len(token_R), 3, seed=1)
    summed = torch.stack([y[rows].sum(0) for rows in row_NK])
    torch.testing.assert_close(collect(y, token_R, row_NK), summed)
    grad = torch.autograd.grad((spread(x.requires_grad_(), token_R, row_NK) * y).sum(), x)[0]
    torch.testing.assert_close(grad, summed)  # rows that fill up leave no trace in token 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gradients_are_added_where_they_stand(dtype):
    """With `weight.grad` there, the fast forms add to it, twice for two passes, and nothing else is made."""
    x, label = rand(7, 16, dtype=dtype), torch.arange(7)
    now = WeightGradients()
    linear, experts = FastLinear(16, 20, now).to(dtype), PaddedExperts(2, 16, 24, now).to(dtype)
    head = torch.nn.Parameter(rand(9, 16, dtype=dtype))
    linear.weight.data = rand(20, 16, dtype=dtype)
    for i, p in enumerate(experts.parameters()):
        p.data = rand(*p.shape, seed=i, dtype=dtype)
    weights = [linear.weight, *experts.parameters(), head]

    def loss() -> torch.Tensor:
        y = experts(x, torch.tensor([3, 4]), torch.ones(7, dtype=dtype))
        return (linear(x).float().square().sum() + y.float().square().sum()
                + 3.0 * cross_entropy(x.clone().requires_grad_(), head, label))  # fmt: skip

    once = torch.autograd.grad(loss(), weights)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    places = [weight.grad.data_ptr() for weight in weights]
    for _ in range(2):
        loss().backward()
    for weight, grad, place in zip(weights, once, places, strict=True):
        assert weight.grad.data_ptr() == place
        scale = grad.abs().max().item()
        tolerance = 1e-12 if dtype == torch.float64 else 0.03
        assert (weight.grad - 2 * grad).abs().max().item() <= tolerance * scale


MODEL = ModelConfig(
    name="test", vocab_size=64, hidden_size=32, num_layers=3, dense_layers=1, dense_size=48, max_positions=64,
    init_std=0.1,
    attention=AttentionConfig(num_heads=2, q_rank=16, kv_rank=16, nope_head=8, rope_head=8, value_head=6),
    moe=MoEConfig(num_experts=8, experts_per_token=3, num_groups=4, groups_per_token=2, expert_size=16),
    mtp=MTPConfig(depth=2),
)  # fmt: skip


@pytest.mark.parametrize("query_latent", [16, 0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
def test_a_whole_step_is_the_same(query_latent, masked, recompute):
    """Losses, loads and the gradient of every parameter, with MTP, micro-batches and the balance loss."""
    config = replace(MODEL, attention=replace(MODEL.attention, q_rank=query_latent))
    ids = torch.randint(0, 64, (4, 41), generator=torch.Generator().manual_seed(1))
    batch = Batch(ids, (torch.arange(41) // 13).expand(4, -1).contiguous())
    results = []
    for kernels in (PlainKernels(), FastKernels(torch.bfloat16)):  # the latter fills rows up
        model = Transformer(config, kernels=kernels, seed=0).double()
        model.recompute = recompute
        options = {"micro_rows": 2, "dtype": torch.float64, "mask_documents": masked}
        losses = backward(model, batch, Weights(0.3, 0.01), **options)
        results.append((losses, {name: p.grad for name, p in model.named_parameters()}))
    (plain, wanted), (fast, got) = results
    assert fast.main == pytest.approx(plain.main, rel=1e-13)
    assert fast.mtp == pytest.approx(plain.mtp, rel=1e-13)
    assert fast.count_LE.equal(plain.count_LE) and fast.tokens == plain.tokens
    assert all(grad is not None and (grad != 0).any() for grad in wanted.values())
    for name, grad in wanted.items():
        assert (got[name] - grad).abs().max() <= 1e-11 * grad.abs().max(), name


def test_the_choice_of_kernels():
    plain, narrow = choose_kernels("plain", torch.bfloat16), choose_kernels("fast", torch.bfloat16)
    wide = choose_kernels("fast", torch.float32)
    assert type(plain.linear(2, 3)) is Linear and type(plain.experts(2, 2, 2)) is Experts
    assert isinstance(narrow.linear(2, 3), FastLinear) and isinstance(narrow.experts(2, 2, 2), PaddedExperts)
    compiled = 32 if multiplies_bf16() else 1  # rows for which bf16 products are compiled
    assert (plain.row_multiple, narrow.row_multiple, wide.row_multiple) == (1, compiled, 1)
    assert choose_kernels("fast", torch.bfloat16, "cuda").row_multiple == 1


def test_moving_memory_into_large_pages_changes_nothing_in_it(generator):
    blocks = [torch.randn(n, generator=generator) for n in (1 << 22, 1 << 20, 333)]
    before = [block.clone() for block in blocks]
    large_pages()
    assert all(torch.equal(block, was) for block, was in zip(blocks, before, strict=True))
