"""Losses and gradients of one step: targets, the cut into micro-batches, bits per byte."""

from __future__ import annotations

import math

import pytest
import torch

from fathom.data.batch import Batch
from fathom.model.transformer import Transformer
from fathom.ops.loss import IGNORE
from fathom.train.held_out import bits_per_byte
from fathom.train.step import Weights, backward, labels

TOKEN = torch.tensor([[10, 11, 12, 20, 21, 22, 2]])
SEGMENT = torch.tensor([[0, 0, 0, 1, 1, 1, -1]])


def test_targets_are_the_next_tokens_and_mtps_the_ones_after():
    main, first, second = labels(Batch(TOKEN, SEGMENT), 2, stop_at_borders=False)
    assert main.tolist() == [[11, 12, 20, 21, 22, IGNORE]]  # borders are crossed, padding is not
    assert first.tolist() == [[12, 20, 21, 22, IGNORE, IGNORE]]
    assert second.tolist() == [[20, 21, 22, IGNORE, IGNORE, IGNORE]]


def test_targets_of_mtp_can_stop_at_borders():
    _, first, second = labels(Batch(TOKEN, SEGMENT), 2, stop_at_borders=True)
    assert first.tolist() == [[12, IGNORE, IGNORE, 22, IGNORE, IGNORE]]
    assert second.tolist() == [[IGNORE] * 6]


def test_only_the_assistants_words_are_targets():
    mask = torch.tensor([[False, False, True, False, False, True, False]])
    main, first = labels(Batch(TOKEN, SEGMENT, mask), 1, stop_at_borders=True)
    assert main.tolist() == [[IGNORE, 12, IGNORE, IGNORE, 22, IGNORE]]
    assert first.tolist() == [[12, IGNORE, IGNORE, 22, IGNORE, IGNORE]]


def some_batch(rows: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(0)
    segment = torch.zeros(rows, 21, dtype=torch.long)
    segment[:, 9:] = 1
    segment[1, 15:] = -1  # rows of unequal length: normalising per micro-batch would be wrong
    segment[3, 4:] = -1
    return Batch(torch.randint(0, 400, (rows, 21), generator=generator), segment)


@pytest.mark.parametrize("micro_rows", [1, 2, 3])
def test_micro_batches_change_nothing(recipe, micro_rows):
    results = []
    for rows in (0, micro_rows):
        model = Transformer(recipe.model).double()
        losses = backward(model, some_batch(), Weights(mtp=0.3, sequence=0.01), micro_rows=rows)
        results.append((losses, {n: p.grad for n, p in model.named_parameters()}))
    (whole, grads), (cut, cut_grads) = results
    assert (whole.main, whole.mtp, whole.sequence) == pytest.approx((cut.main, cut.mtp, cut.sequence))
    assert torch.equal(whole.count_LE, cut.count_LE) and whole.tokens == cut.tokens
    for name, grad in grads.items():
        torch.testing.assert_close(cut_grads[name], grad, rtol=1e-9, atol=1e-12, msg=name)


def test_loss_is_the_sum_of_its_weighted_parts(recipe):
    """d loss / d parameter is linear in lambda and alpha."""

    def grads(mtp: float, sequence: float) -> dict[str, torch.Tensor]:
        model = Transformer(recipe.model).double()
        backward(model, some_batch(), Weights(mtp, sequence))
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    none, mtp, both = grads(0.0, 0.0), grads(0.3, 0.0), grads(0.6, 0.5)
    sequence = grads(0.0, 0.5)
    for name in none:
        expected = none[name] + 2 * (mtp[name] - none[name]) + (sequence[name] - none[name])
        torch.testing.assert_close(both[name], expected, rtol=1e-8, atol=1e-10, msg=name)
    assert (mtp["mtp.0.project.weight"] != 0).any() and (none["mtp.0.project.weight"] == 0).all()
    assert not torch.equal(none["layers.1.ffn.router.weight"], sequence["layers.1.ffn.router.weight"])


def test_bf16_activations_leave_fp32_masters_and_fp32_gradients(recipe):
    model = Transformer(recipe.model)
    backward(model, some_batch(), Weights(0.3, 1e-4), dtype=torch.bfloat16)
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())


def test_bits_per_byte_of_a_uniform_guess(recipe):
    """400 equal logits cost log2(400) bits a token; at 3 bytes a token that is a third of it per byte."""
    model = Transformer(recipe.model)
    model.head.weight.data.zero_()
    batch = some_batch()
    bits = bits_per_byte(model, [batch, batch], torch.full((400,), 3))
    assert bits == pytest.approx(math.log2(400) / 3, rel=1e-6)
    assert math.isnan(bits_per_byte(model, [], torch.full((400,), 3)))


def test_bits_per_byte_can_keep_documents_apart(recipe):
    """Masked as in training: what stands in one document does not change the cost of another."""
    model, batch = Transformer(recipe.model), some_batch().take(slice(0, 1))
    token, segment = batch.token_BT1, batch.segment_BT1
    counted = segment == 1
    counted[:, 9] = False  # predicted across the border
    second = Batch(token, segment, counted)
    changed = Batch(torch.where(segment == 0, token % 399 + 1, token), segment, counted)

    def cost(batch: Batch, masked: bool) -> float:
        return bits_per_byte(model, [batch], torch.full((400,), 3), mask_documents=masked)

    assert cost(second, True) == pytest.approx(cost(changed, True), rel=1e-5)
    assert cost(second, False) != pytest.approx(cost(changed, False), rel=1e-5)
