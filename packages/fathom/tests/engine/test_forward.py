"""The engine's pass over pages computes what the model computes, in any division of the positions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig, RopeConfig
from fathom.engine.forward import Pool, logits, mtp, mtp_input, mtp_logits, trunk
from fathom.engine.layout import in_row_order, lay_out
from fathom.engine.request import SamplingParams
from fathom.engine.scheduler import Work
from fathom.engine.sequence import Sequence
from fathom.engine.weights import pack_weights
from fathom.model.transformer import Transformer
from fathom.ops.products import TiledProducts

V3 = ModelConfig(
    name="v3-shaped", vocab_size=64, hidden_size=32, num_layers=3, dense_layers=1, dense_size=48,
    max_positions=128, init_std=0.2, rope=RopeConfig(factor=4.0, original_positions=32),
    attention=AttentionConfig(num_heads=4, q_rank=24, kv_rank=16, nope_head=8, rope_head=4, value_head=6),
    moe=MoEConfig(num_experts=8, experts_per_token=2, num_groups=4, groups_per_token=2, expert_size=16),
    mtp=MTPConfig(depth=1),
)  # fmt: skip
V2 = replace(
    V3, name="v2-shaped", attention=replace(V3.attention, q_rank=0, value_head=12),
    moe=replace(V3.moe, score="softmax", normalize=False, num_groups=1, groups_per_token=1, num_shared=0),
    mtp=MTPConfig(depth=1, trunk="post_norm"),
)  # fmt: skip
PAGE = 8


def build(config: ModelConfig) -> Transformer:
    model = Transformer(config, seed=3).double().eval()
    generator = torch.Generator().manual_seed(4)
    for name, buffer in model.named_buffers():
        if name.endswith("router.bias"):
            buffer.uniform_(-0.1, 0.1, generator=generator)
    return model


def sequence(tokens: list[int], prompt: int, pages: list[int]) -> Sequence:
    s = Sequence(0, 0, "", tuple(tokens[:prompt]), SamplingParams(), 128)
    s.output, s.pages = tokens[prompt:], pages
    return s


def passes(config: ModelConfig, model: Transformer, works: list[list[Work]]) -> tuple[dict, Tensor, Tensor]:
    """Logits and MTP logits by (sequence, position), float64, and the pool."""
    weights = pack_weights(config, dict(model.state_dict()), TiledProducts(), draft=True)
    pool = Pool(config, 40, PAGE, weights.embed_VD, draft=True)
    found, further = {}, {}
    for step in works:
        ordered = in_row_order(step)
        rows = lay_out(ordered, PAGE, weights.turn)
        token_R = torch.tensor([t for w in ordered for t in w.sequence.tokens(w.start, w.start + w.count)])
        after = [[*w.sequence.tokens(w.start + 1, w.start + w.count + 1), 0][: w.count] for w in ordered]
        next_R = torch.tensor([t for tokens in after for t in tokens])
        h_RD = trunk(weights, token_R, rows, pool)
        g_RD = mtp(weights, mtp_input(weights, h_RD), next_R, rows, pool)
        where = [(w.sequence, p) for w in ordered for p in range(w.start, w.start + w.count)]
        found |= dict(zip(where, logits(weights, h_RD), strict=True))
        further |= dict(zip(where, mtp_logits(weights, g_RD), strict=True))
    return found, further, pool.data_LGSE


@pytest.mark.parametrize("config", [V3, V2], ids=lambda c: c.name)
@torch.inference_mode()
def test_prefill_replay_and_decode_in_company_compute_the_model(config):
    model = build(config)
    generator = torch.Generator().manual_seed(5)
    texts = [torch.randint(0, 64, (n,), generator=generator).tolist() for n in (30, 17, 40)]
    a = sequence(texts[0], 19, [3, 1, 7, 30])
    b = sequence(texts[1], 16, [0, 2, 39])
    c = sequence(texts[2], 1, [9, 8, 11, 10, 20])
    steps = [
        [Work(a, 0, 16, "prefill"), Work(b, 0, 8, "prefill"), Work(c, 0, 1, "prefill")],
        [Work(c, 1, 20, "replay"), Work(a, 16, 3, "prefill"), Work(b, 8, 8, "prefill")],
        [Work(a, 19, 1, "decode"), Work(b, 16, 1, "decode"), Work(c, 21, 3, "decode")],
        [Work(a, 20, 10, "decode"), Work(c, 24, 16, "replay")],
    ]
    found, further, _ = passes(config, model, steps)
    for s, text in ((a, texts[0]), (b, texts[1]), (c, texts[2])):
        token_BT = torch.tensor([text])
        expected = model(token_BT, mtp=True)
        main, next_ = model.head(expected.hidden_BTD)[0], model.head(expected.mtp_BTD[0])[0]
        for p in range(len(text)):
            torch.testing.assert_close(found[s, p], main[p], rtol=1e-9, atol=1e-9)
            if p < len(text) - 1:
                torch.testing.assert_close(further[s, p], next_[p], rtol=1e-9, atol=1e-9)


@torch.inference_mode()
def test_only_the_slots_of_the_rows_are_written():
    model = build(V3)
    s = sequence(list(range(20)), 20, [5, 17, 2])
    _, _, pool_LGSE = passes(V3, model, [[Work(s, 0, 20, "prefill")]])
    written = pool_LGSE.abs().sum((0, 3)).nonzero().tolist()
    assert written == sorted([[page, i] for page, n in ((5, 8), (17, 8), (2, 4)) for i in range(n)])


def test_the_cache_has_576_elements_a_token_and_layer_at_v3s_shapes():
    assert ModelConfig().attention.cache_elements == 576
    config = replace(ModelConfig(), num_layers=3)
    pool = Pool(config, 1, 2, torch.empty(0, dtype=torch.bfloat16), draft=True)
    assert pool.nbytes == (3 + 1) * 2 * 576 * 2


def test_packing_empties_the_state_so_that_one_copy_is_held():
    state = dict(build(V3).state_dict())
    weights = pack_weights(V3, state, TiledProducts(), draft=False)
    assert not state and weights.draft is None
