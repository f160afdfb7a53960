"""The two forms of latent attention are one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fathom.config.model import RopeConfig
from fathom.model.attention import MLA
from fathom.model.cache import LatentCache
from fathom.model.transformer import Transformer
from fathom.ops.kernels import PlainKernels
from fathom.ops.rope import frequencies, rotation


def rotation_of(config, start, T):
    frequency_P = frequencies(config.rope, config.attention.rope_head, dtype=torch.float64)
    return rotation(frequency_P, torch.arange(start, start + T))


def attention_of(config):
    mla = MLA(config, PlainKernels()).double()
    for i, p in enumerate(mla.parameters()):
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(i))
    return mla


@pytest.mark.parametrize("q_rank", [0, 24])
@pytest.mark.parametrize("factor", [1.0, 40.0])
def test_decoding_form_matches_training_form(config, q_rank, factor):
    shape = replace(config.attention, q_rank=q_rank)
    config = replace(config, attention=shape, rope=RopeConfig(factor=factor, original_positions=16))
    mla, turn = attention_of(config), rotation_of(config, 0, 12)
    x_BTD = torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    torch.testing.assert_close(mla(x_BTD, turn), mla.absorbed(x_BTD, turn), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cuts", [[12], [1] * 12, [5, 1, 6], [7, 5]])
def test_cached_positions_give_what_whole_rows_give(config, cuts):
    mla = attention_of(config)
    x_BTD = torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    cache = LatentCache(config, batch=2, capacity=12, dtype=torch.float64)
    parts, start = [], 0
    for T in cuts:
        parts.append(mla(x_BTD[:, start : start + T], rotation_of(config, start, T), cache=cache, layer=1))
        cache.advance(T)
        start += T
    whole = mla(x_BTD, rotation_of(config, 0, 12))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-10, atol=1e-12)


def test_cache_holds_one_latent_and_one_rotated_key(config):
    cache = LatentCache(config, batch=2, capacity=10)
    assert cache._data_LBSE.shape == (3, 2, 10, 16 + 4)
    with pytest.raises(AssertionError, match="11 positions do not fit a cache of 10"):
        Transformer(config).logits(torch.zeros(2, 11, dtype=torch.long), cache=cache)
