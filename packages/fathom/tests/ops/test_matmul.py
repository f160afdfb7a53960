"""bf16 products made in fp32 are those that instructions for bf16 make."""

import pytest
import torch

from fathom.ops import matmul as module
from fathom.ops.blocked_attention import blocked_attention
from fathom.ops.matmul import add_matmul, matmul, matmul_into


@pytest.fixture(params=[True, False], ids=["with instructions", "without"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(module, "multiplies_bf16", lambda: request.param)
    return request.param


def test_products_are_rounded_once(machine: bool) -> None:
    a, b = torch.randn(7, 300).bfloat16(), torch.randn(300, 5).bfloat16()
    exact = (a.double() @ b.double()).float()
    once = exact.bfloat16()
    into = torch.empty(7, 5, dtype=torch.bfloat16)
    matmul_into(into, a, b)
    added = torch.ones(7, 5, dtype=torch.bfloat16)
    add_matmul(added, a, b)
    for made, wanted in ((matmul(a, b), once), (into, once), (added, (exact + 1).bfloat16())):
        assert made.dtype == torch.bfloat16
        # Sums differ in their last fp32 bits, so a few results may fall on the other side of a tie.
        assert (made.float() - wanted.float()).abs().max() <= 2**-8 * wanted.float().abs().max()
        assert (made == wanted).float().mean() > 0.9


def test_fp32_is_left_alone(machine: bool) -> None:
    a, b = torch.randn(4, 9), torch.randn(9, 3)
    assert torch.equal(matmul(a, b), a @ b)


def test_attention_in_bf16_gives_bf16_gradients(machine: bool) -> None:
    q, k, v = (torch.randn(2, 3, 20, 8).bfloat16().requires_grad_() for _ in range(3))
    out = blocked_attention(q, k, v, 0.3)
    (out.float() ** 2).sum().backward()
    wide = [t.detach().double().requires_grad_() for t in (q, k, v)]
    exact = blocked_attention(*wide, 0.3)
    (exact**2).sum().backward()
    assert out.dtype == q.grad.dtype == torch.bfloat16
    grads = [(narrow.grad, t.grad) for narrow, t in zip((q, k, v), wide, strict=True)]
    for made, wanted in [(out, exact), *grads]:
        assert (made.double() - wanted).norm() <= 0.02 * wanted.norm()
