"""The network as a whole: sizes, MTP, recomputation, replay, documents, generation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fathom.config.counts import count
from fathom.config.errors import ConfigError
from fathom.config.presets import PRESETS, load_preset
from fathom.model.cache import LatentCache
from fathom.model.generate import Sampling, generate, sample
from fathom.model.mtp import shift
from fathom.model.transformer import Transformer
from fathom.ops.loss import cross_entropy


@pytest.mark.parametrize("preset", PRESETS)
def test_counted_parameters_are_the_networks_own(preset):
    """Built on the meta device: nothing is allocated, not even for 671B."""
    config = load_preset(preset)
    with torch.device("meta"):
        model = Transformer(config, seed=None)
    parts = {"mtp": 0, "trunk": 0}
    for name, tensor in model.state_dict().items():
        if name.endswith("router.bias") and config.moe.score == "softmax":
            continue  # V2's published counts know no bias; here it is a buffer that stays 0
        parts["mtp" if name.startswith("mtp.") else "trunk"] += tensor.numel()
    counts = count(config)
    assert (parts["trunk"], parts["mtp"]) == (counts.total, counts.mtp)


def test_mtp_shift_stops_at_rows_and_documents():
    """Tokens A0 A1 A2 B0 B1 B2 B3: shifted by one A1 A2 - B1 B2 B3 -, by two A2 - - B2 B3 - -."""
    token, document = torch.tensor([[10, 11, 12, 20, 21, 22, 23]]), torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    shifted, exists = shift(token, 1, document)
    assert shifted.tolist() == [[11, 12, 0, 21, 22, 23, 0]]
    assert exists.tolist() == [[True, True, False, True, True, True, False]]
    assert shift(token, 2, document)[0].tolist() == [[12, 0, 0, 22, 23, 0, 0]]
    assert shift(token, 1)[0].tolist() == [[11, 12, 20, 21, 22, 23, 0]]
    assert not shift(token, 9)[1].any()


def test_mtp_sees_exactly_one_token_further_per_module(config, token_BT):
    model = Transformer(config).double()  # in fp32 rounding would depend on the company a row keeps
    before = model(token_BT, mtp=True)
    changed_BT = token_BT.clone()
    changed_BT[:, 6] = (changed_BT[:, 6] + 1) % 64
    after = model(changed_BT, mtp=True)
    first = [
        int(((a - b).abs() > 1e-9).any(-1).any(0).nonzero()[0])
        for a, b in zip((before.hidden_BTD, *before.mtp_BTD), (after.hidden_BTD, *after.mtp_BTD), strict=True)
    ]
    assert first == [6, 5, 4]


@pytest.mark.parametrize("trunk", ["pre_norm", "post_norm"])
def test_mtp_reads_the_trunk_before_or_after_its_final_norm(config, token_BT, trunk):
    config = replace(config, mtp=replace(config.mtp, trunk=trunk))
    model = Transformer(config)
    before = model(token_BT, mtp=True)
    model.norm.weight.data[:16] *= 3.0
    after = model(token_BT, mtp=True)
    assert not torch.equal(before.hidden_BTD, after.hidden_BTD)
    assert torch.equal(before.mtp_BTD[0], after.mtp_BTD[0]) == (trunk == "pre_norm")


def test_mtp_can_stop_at_document_borders(config, token_BT):
    config = replace(config, mtp=replace(config.mtp, mask_borders=True))
    model = Transformer(config).double()
    document = torch.zeros_like(token_BT)
    document[:, 6:] = 1
    before = model(token_BT, segment_BT=document, mtp=True).mtp_BTD[0]
    changed_BT = token_BT.clone()
    changed_BT[:, 6] = (changed_BT[:, 6] + 1) % 64
    after = model(changed_BT, segment_BT=document, mtp=True).mtp_BTD[0]
    torch.testing.assert_close(before[:, :6], after[:, :6], rtol=1e-9, atol=1e-9)


def loss_of(model, token_BT):
    out = model(token_BT, mtp=True)
    states = (out.hidden_BTD, *out.mtp_BTD)
    loss = sum(cross_entropy(h.flatten(0, 1), model.head.weight, token_BT.flatten()) for h in states)
    return loss + sum(r.sequence_loss for r in out.routing), out


def test_recomputation_changes_no_gradient_and_counts_no_token_twice(config, token_BT):
    results = []
    for recompute in (False, True):
        model = Transformer(config).double()
        model.recompute = recompute
        loss, out = loss_of(model, token_BT)
        loss.backward()
        results.append(({n: p.grad for n, p in model.named_parameters()}, [r.count_E for r in out.routing]))
    (stored, counts), (remade, counts_again) = results
    assert all(torch.equal(a, b) for a, b in zip(counts, counts_again, strict=True))
    assert all(c.sum() == 2 * expected for c, expected in zip(counts, [36, 36, 33, 30], strict=True))
    for name, grad in stored.items():
        assert grad is not None, f"{name} gets no gradient"
        torch.testing.assert_close(remade[name], grad, rtol=1e-12, atol=1e-12)


def test_every_parameter_gets_a_gradient_and_the_bias_none(config, token_BT):
    model = Transformer(config)
    loss_of(model, token_BT)[0].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert not any(name.endswith("router.bias") for name, _ in model.named_parameters())


def test_replayed_choices_give_the_same_output_after_the_router_has_moved(config, token_BT):
    model = Transformer(config)
    first = model(token_BT, mtp=True)
    choices = [r.expert_NK for r in first.routing]
    for name, buffer in model.named_buffers():
        if name.endswith("router.bias"):
            buffer.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    moved, replayed = model(token_BT, mtp=True), model(token_BT, mtp=True, choices=choices)
    assert not torch.equal(moved.hidden_BTD, first.hidden_BTD)
    assert torch.equal(replayed.hidden_BTD, first.hidden_BTD)
    assert torch.equal(replayed.mtp_BTD[1], first.mtp_BTD[1])


def test_a_masked_document_is_what_it_would_be_alone(config, token_BT):
    """Distances are relative, so a document's place in the row does not matter."""
    model = Transformer(config).double()
    document = torch.zeros_like(token_BT)
    document[:, 5:] = 1
    packed = model(token_BT, segment_BT=document, mask_documents=True).hidden_BTD
    alone = model(token_BT[:, 5:]).hidden_BTD
    torch.testing.assert_close(packed[:, 5:], alone, rtol=1e-6, atol=1e-7)  # fp32 rotation tables
    assert not torch.allclose(model(token_BT, segment_BT=document).hidden_BTD[:, 5:], alone, atol=1e-3)


def test_bf16_activations_follow_fp32(config, token_BT):
    model = Transformer(config)
    out = model(token_BT, dtype=torch.bfloat16)
    assert out.hidden_BTD.dtype == torch.bfloat16
    same = [r.expert_NK for r in out.routing]
    fp32 = model(token_BT, choices=same).hidden_BTD
    assert (out.hidden_BTD.float() - fp32).abs().max() < 0.1 * fp32.abs().max()


def test_a_seed_names_one_model(config):
    same = [Transformer(config, seed=s).state_dict() for s in (3, 3, 4)]
    assert all(torch.equal(same[0][n], same[1][n]) for n in same[0])
    assert not torch.equal(same[0]["head.weight"], same[2]["head.weight"])
    assert same[0]["layers.1.ffn.experts.gate"].std().item() == pytest.approx(0.2, rel=0.05)
    assert (same[0]["layers.0.attn_norm.weight"] == 1).all()


@pytest.mark.parametrize("factor", [1.0, 40.0])
def test_greedy_with_the_cache_equals_greedy_without(config, token_BT, factor):
    config = replace(config, rope=replace(config.rope, factor=factor, original_positions=16))
    model = Transformer(config)
    runs = [list(generate(model, token_BT, max_tokens=24, use_cache=cached)) for cached in (True, False)]
    assert torch.equal(torch.stack(runs[0]), torch.stack(runs[1]))


def test_sampling_keeps_the_smallest_set_that_reaches_top_p():
    logit = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    generator = torch.Generator().manual_seed(0)
    drawn = {sample(logit, Sampling(temperature=1.0, top_p=0.7), generator).item() for _ in range(200)}
    assert drawn == {0, 1}
    assert sample(logit, Sampling(temperature=1.0, top_p=1e-9), generator).item() == 0
    assert sample(logit, Sampling()).item() == 0
    hot = Sampling(temperature=2.0)
    repeated = {sample(logit, hot, torch.Generator().manual_seed(5)).item() for _ in range(3)}
    assert len(repeated) == 1


def test_sampling_follows_the_distribution():
    logit = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(20000, 4)
    drawn = sample(logit, Sampling(temperature=1.0), torch.Generator().manual_seed(0)).bincount(minlength=4)
    expected = torch.tensor([0.5, 0.3, 0.15, 0.05]) * 20000
    chi_square = ((drawn - expected) ** 2 / expected).sum().item()
    assert chi_square < 16.27, "p = 0.001 with three degrees of freedom"


def test_padding_rows_of_the_vocabulary_are_never_drawn(config, token_BT):
    model = Transformer(config)
    model.head.weight.data[40:] = 10 * model.head.weight.data[:24]
    drawn = torch.stack(list(generate(model, token_BT % 40, max_tokens=20, tokens=40)))
    assert drawn.max() < 40


@pytest.mark.parametrize(
    "bad", [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 1.5}]
)
def test_sampling_refuses_nonsense(bad):
    with pytest.raises(ConfigError, match="Fix: "):
        Sampling(**bad)


def test_mtp_has_no_cache(config, token_BT):
    with pytest.raises(AssertionError, match="no cache"):
        Transformer(config)(token_BT, mtp=True, cache=LatentCache(config, 3, 12))


def test_generation_that_does_not_fit_is_refused(config, token_BT):
    with pytest.raises(ConfigError, match="max_positions=64.*Fix: .*52"):
        next(generate(Transformer(config), token_BT, max_tokens=60))
    with pytest.raises(ConfigError, match="empty"):
        next(generate(Transformer(config), token_BT[:, :0], max_tokens=1))
