"""FP8 layers make the three products that the report draws, of the tiles it names (section 3.3, figure 6)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

from fathom.model.experts import LocalDispatch
from fathom.ops.deferred import finish
from fathom.ops.experts import experts_loop
from fathom.ops.fp8 import (
    dequantize_blocks,
    dequantize_columns,
    dequantize_tiles,
    quantize_blocks,
    quantize_columns,
    quantize_tiles,
    tiles_to_columns,
)
from fathom.ops.fp8.choose import choose_backend
from fathom.ops.fp8.cpu import Cpu
from fathom.ops.fp8.e5m6 import pack_e5m6, unpack_e5m6
from fathom.ops.fp8.kernels import Fp8Kernels
from fathom.ops.fp8.linear import Fp8Linear
from fathom.ops.fp8.reference import Reference
from fathom.ops.linear import FastLinear

WIDE = torch.float32
N, X, Y = 210, 200, 136
E, K, INNER = 6, 2, 144


def seeded(*shape: int, seed: int = 0, size: float = 1.0) -> Tensor:
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filled(module: nn.Module) -> nn.Module:
    for at, parameter in enumerate(module.parameters()):
        parameter.data = seeded(*parameter.shape, seed=at + 10, size=0.05)
    return module


def tiled(x: Tensor, power_of_two: bool = False) -> Tensor:
    return dequantize_tiles(*quantize_tiles(x, power_of_two=power_of_two), WIDE)


def in_columns(x: Tensor, power_of_two: bool = False) -> Tensor:
    return dequantize_columns(*quantize_columns(x, power_of_two=power_of_two), WIDE)


def blocked(w: Tensor) -> Tensor:
    return dequantize_blocks(*quantize_blocks(w), WIDE)


def close(made: Tensor | None, wanted: Tensor, most: float = 1e-5) -> None:
    assert made is not None and made.shape == wanted.shape
    assert (made - wanted).abs().max() <= most * wanted.abs().max()


@pytest.fixture(params=["reference", "cpu"])
def kernels(request: pytest.FixtureRequest) -> Fp8Kernels:
    return Fp8Kernels(Reference() if request.param == "reference" else Cpu(torch.float32))


@pytest.mark.parametrize("finer", [False, True])
def test_a_linear_map_is_its_three_products(kernels, finer):
    layer = filled(kernels.linear(X, Y, "finer" if finer else "low"))
    assert isinstance(layer, Fp8Linear)
    x, dy = seeded(3, N // 3, X).requires_grad_(), seeded(3, N // 3, Y, seed=1)
    y = layer(x)
    y.backward(dy)
    x_NX, dy_NY, w = x.detach().flatten(0, 1), dy.flatten(0, 1), blocked(layer.weight.detach())
    close(y.flatten(0, 1), tiled(x_NX, power_of_two=finer) @ w.T)                          # Fprop
    close(x.grad.flatten(0, 1), tiled(dy_NY) @ w)                                          # Dgrad
    if finer:  # held in E5M6, cut into columns with powers of two
        held = in_columns(unpack_e5m6(pack_e5m6(x_NX), X), power_of_two=True)
    else:  # held in tiles, cut into columns
        held = dequantize_columns(*tiles_to_columns(quantize_tiles(x_NX)), WIDE)
    close(layer.weight.grad, in_columns(dy_NY).T @ held)                                   # Wgrad


def test_e5m6_spares_the_weight_gradient_of_attentions_output(kernels):
    """What it is for: x is rounded once on its way to Wgrad instead of twice."""
    x, dy = seeded(256, X), seeded(256, Y, seed=1)
    errors = []
    for precision in ("low", "finer"):
        layer = filled(kernels.linear(X, Y, precision))
        layer(x).backward(dy)
        exact = in_columns(dy).T @ x
        errors.append(float((layer.weight.grad - exact).norm() / exact.norm()))
    assert 0.020 < errors[1] < 0.030 < errors[0] < 0.040, errors


def test_a_feed_forward_holds_the_inputs_of_swiglu_and_makes_its_output_again(kernels):
    layer = filled(kernels.swiglu(X, INNER))
    x, dy = seeded(N, X).requires_grad_(), seeded(N, X, seed=1)
    y = layer(x)
    y.backward(dy)
    gate, up, down = (blocked(m.weight.detach()) for m in (layer.gate, layer.up, layer.down))
    x_q = tiled(x.detach())
    g, u = x_q @ gate.T, x_q @ up.T
    wanted = tiled(torch.nn.functional.silu(g) * u) @ down.T
    assert (y - wanted).norm() <= 1e-3 * y.norm()  # a last bit of h may make it fall to another side
    held_g, held_u = tiled(g), tiled(u)
    dh = tiled(dy) @ down
    s = held_g.sigmoid()
    dg, du = dh * held_u * s * (1 + held_g * (1 - s)), dh * held_g * s
    h = held_g * s * held_u
    for made, wanted in (
        (x.grad, tiled(dg) @ gate + tiled(du) @ up),
        (layer.down.weight.grad, in_columns(dy).T @ in_columns(h)),
        (layer.gate.weight.grad, in_columns(dg).T @ in_columns(x_q)),
        (layer.up.weight.grad, in_columns(du).T @ in_columns(x_q)),
    ):
        assert (made - wanted).norm() <= 2e-3 * wanted.norm()


def choices() -> Tensor:
    """K of the first five experts for every token; the last has none."""
    generator = torch.Generator().manual_seed(4)
    return torch.stack([torch.randperm(E - 1, generator=generator)[:K] for _ in range(N)])


def routed(kernels: Fp8Kernels, late: bool) -> tuple[list[Tensor], nn.Module]:
    """Experts behind a dispatch: outputs, gradients of tokens and weights, and of the three stacks."""
    layer = filled(kernels.experts(E, X, INNER))
    x, weight = seeded(N, X).requires_grad_(), seeded(N, K, seed=3).abs().requires_grad_()
    expert = choices()
    dispatch = LocalDispatch(kernels.row_multiple, kernels.spread) if late else LocalDispatch()
    sent = dispatch.receive(dispatch.send(x, expert, weight, E))
    y = dispatch.gather(layer(sent.x_RD, sent.count_E, sent.weight_R), sent)
    y.backward(seeded(N, X, seed=1))
    return [y.detach(), x.grad, weight.grad, *(p.grad for p in layer.parameters())], layer


def test_experts_copied_late_or_early_filled_or_not_are_the_same(kernels):
    """Rows of each expert that are no multiple of 128 are filled up, and nothing changes."""
    for late, early in zip(routed(kernels, True)[0], routed(kernels, False)[0], strict=True):
        close(late, early, 1e-6)


def test_experts_weigh_before_the_down_projection(kernels):
    (y, *_), layer = routed(kernels, True)
    x = tiled(seeded(N, X), power_of_two=True)
    expert = choices()
    weight = seeded(N, K, seed=3).abs()
    gate, up, down = (blocked(w.detach()) for w in (layer.gate, layer.up, layer.down))
    wanted = torch.zeros(N, X)
    for k in range(K):
        for e in range(E):
            rows = expert[:, k] == e
            h = torch.nn.functional.silu(x[rows] @ gate[e].T) * (x[rows] @ up[e].T) * weight[rows, k, None]
            wanted[rows] += tiled(h) @ down[e].T
    assert (y - wanted).norm() <= 1e-3 * wanted.norm()
    unquantised = experts_of(layer, expert, weight)
    assert 0.01 < (y - unquantised).norm() / unquantised.norm() < 0.12


@pytest.mark.parametrize("late", [True, False])
def test_gradients_of_experts_are_the_products_of_their_tiles(kernels, late):
    """Written out for each expert: powers of two for what may travel, fp32 scales for what does not."""
    (_, dx, dweight, *weights), layer = routed(kernels, late)
    x, dy, weight, expert = tiled(seeded(N, X), True), tiled(seeded(N, X, seed=1), True), *routes()
    gate, up, down = (blocked(w.detach()) for w in (layer.gate, layer.up, layer.down))
    want_x, want_weight, want = torch.zeros(N, X), torch.zeros(N, K), [torch.zeros_like(w) for w in weights]
    for e in range(E):
        token, k = (expert == e).nonzero(as_tuple=True)
        if not len(token):
            continue
        x_e, dy_e, w_e = x[token], dy[token], weight[token, k][:, None]
        g, u = tiled(x_e @ gate[e].T), tiled(x_e @ up[e].T)
        s = g.sigmoid()
        dh = dy_e @ down[e]
        want_weight[token, k] = (dh * g * s * u).sum(1)
        dg, du, h = dh * w_e * u * s * (1 + g * (1 - s)), dh * w_e * g * s, g * s * u * w_e
        want_x.index_add_(0, token, tiled(dg) @ gate[e] + tiled(du) @ up[e])
        columns = in_columns(x_e, True)
        want[0][e] = in_columns(dg).T @ columns
        want[1][e] = in_columns(du).T @ columns
        want[2][e] = in_columns(dy_e, True).T @ in_columns(h)
    for made, wanted in zip((dx, dweight, *weights), (want_x, want_weight, *want), strict=True):
        assert (made - wanted).norm() <= 3e-3 * wanted.norm()


def routes() -> tuple[Tensor, Tensor]:
    return seeded(N, K, seed=3).abs(), choices()


def test_rows_that_fill_up_leave_no_trace(kernels):
    """They are copies of token 0: a token 0 of large numbers and gradients would set everyone's scales."""
    grads = []
    for loud in (1.0, 1e4):
        layer = filled(kernels.experts(E, X, INNER))
        x, dy = seeded(N, X), seeded(N, X, seed=1)
        x[0], dy[0] = x[0] * loud, dy[0] * loud
        dispatch = LocalDispatch(kernels.row_multiple, kernels.spread)
        weight, expert = routes()
        sent = dispatch.send(x.requires_grad_(), expert, weight, E)
        dispatch.gather(layer(sent.x_RD, sent.count_E, sent.weight_R), sent).backward(dy)
        grads.append((layer.up.grad, set(expert[0].tolist())))
    quiet = [e for e in range(E) if e not in grads[0][1]]
    assert torch.equal(grads[0][0][quiet], grads[1][0][quiet])


def test_other_weights_are_not_those_that_were_kept(kernels):
    for made in (lambda: kernels.linear(X, Y), lambda: kernels.experts(1, X, INNER)):
        layer, other = filled(made()), made()
        other.load_state_dict({name: 3 * value for name, value in layer.state_dict().items()})
        layer.keep()
        layer.load_state_dict(other.state_dict())
        given = (seeded(128, X),) if isinstance(layer, Fp8Linear) else (
            seeded(128, X), torch.tensor([128]), torch.ones(128)
        )  # fmt: skip
        assert torch.equal(layer(*given), other(*given))


def experts_of(layer: nn.Module, expert: Tensor, weight: Tensor) -> Tensor:
    dispatch = LocalDispatch()
    sent = dispatch.send(seeded(N, X), expert, weight, E)
    stacks = [w.detach() for w in (layer.gate, layer.up, layer.down)]
    return dispatch.gather(experts_loop(sent.x_RD, *stacks, sent.count_E, sent.weight_R), sent)


def test_backends_agree_on_a_whole_layer():
    made = [routed(Fp8Kernels(b), True)[0] for b in (Reference(), Cpu(torch.float32), Cpu(torch.bfloat16))]
    for reference, wide, narrow in zip(*made, strict=True):
        assert (wide - reference).norm() <= 1e-3 * reference.norm()
        # Products rounded to bf16 move by up to 2^-9; one in 2^5 or so then rounds to another E4M3, 2^-3 away
        # at most: sqrt(2^-5) 2^-4 = 1.1 % at each of the quantisations that follow a product.
        assert (narrow - reference).norm() <= 4e-2 * reference.norm()


@pytest.mark.parametrize("what", ["linear", "finer", "swiglu", "experts"])
def test_weight_gradients_can_wait(what):
    kernels = Fp8Kernels(Cpu(torch.float32))
    make = {
        "linear": lambda: kernels.linear(X, X),
        "finer": lambda: kernels.linear(X, X, "finer"),
        "swiglu": lambda: kernels.swiglu(X, INNER),
        "experts": lambda: kernels.experts(E, X, INNER),
    }[what]
    count_E, weight_R = torch.tensor([128, 0, 128, 0, 0, 0]), torch.ones(256)
    grads = []
    for wait in (False, True):
        layer, x, left = filled(make()), seeded(256, X).requires_grad_(), []
        y = layer(x, count_E, weight_R) if what == "experts" else layer(x)
        if not wait:
            y.backward(seeded(256, X, seed=1))
        else:
            with kernels.weight_gradients.later(left):
                y.backward(seeded(256, X, seed=1))
            assert left and all(p.grad is None for p in layer.parameters())
            finish(left)
        grads.append([x.grad, *(p.grad for p in layer.parameters())])
    for now, later in zip(*grads, strict=True):
        assert torch.equal(now, later)


def test_gradients_are_added_up_in_fp32_in_place(kernels):
    layer = filled(kernels.linear(X, Y))
    layer.weight.grad = torch.full_like(layer.weight, 7.0)
    place = layer.weight.grad
    for _ in range(2):
        layer(seeded(N, X).bfloat16()).backward(seeded(N, Y, seed=1).bfloat16())
    assert layer.weight.grad is place and place.dtype == torch.float32
    fresh = filled(kernels.linear(X, Y))
    fresh(seeded(N, X).bfloat16()).backward(seeded(N, Y, seed=1).bfloat16())
    close(place - 7.0, 2 * fresh.weight.grad, 1e-4)


def test_what_needs_precision_keeps_it(kernels):
    head = kernels.linear(X, Y, "full")
    assert type(head) is FastLinear


def test_only_quantised_tensors_are_held(kernels):
    held: list[Tensor] = []

    def see(tensor: Tensor) -> Tensor:
        held.append(tensor)
        return tensor

    made = kernels.linear(X, Y), kernels.linear(X, Y, "finer"), kernels.swiglu(X, INNER)
    layers, x = [filled(layer) for layer in made], seeded(N, X).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(see, lambda t: t):
        for layer in layers:
            layer(x)
    big = [t for t in held if t.numel() * t.element_size() > 4 * N * 2]
    assert big and {t.dtype for t in big} <= {torch.float8_e4m3fn, torch.uint8}
    # x of the plain map and, made anew because the finer one has read it otherwise, of the feed-forward
    assert sum(t.numel() for t in big if t.dtype != torch.uint8) == N * (2 * X + 2 * INNER)
    assert sum(t.numel() for t in big if t.dtype == torch.uint8) == N * X * 3 / 2


class Watched(Cpu):
    """Remembers what it made of the inputs of SwiGLU, without holding it."""

    def swiglu(self, *given):
        made = super().swiglu(*given)
        self.made = [StorageWeakRef(part.q.untyped_storage()) for part in made]
        return made


def test_recomputation_holds_nothing_and_changes_nothing():
    backend = Watched(torch.float32)
    layer = filled(Fp8Kernels(backend).experts(E, X, INNER))
    count_E, weight_R = torch.tensor([128, 0, 128, 0, 0, 0]), torch.ones(256)

    def grads(again: bool) -> list[Tensor]:
        layer.zero_grad()
        x = seeded(256, X).requires_grad_()
        given = x, count_E, weight_R
        y = checkpoint(layer, *given, use_reentrant=False) if again else layer(*given)
        assert [ref.expired() for ref in backend.made] == ([True] * 3 if again else [False, False, True])
        y.backward(seeded(256, X, seed=1))
        return [x.grad, *(p.grad.clone() for p in layer.parameters())]

    for once, twice in zip(grads(False), grads(True), strict=True):
        assert torch.equal(once, twice)


def test_kept_weights_are_read_until_the_next_keep(kernels):
    for layer, x in (
        (filled(kernels.linear(X, Y)), (seeded(128, X),)),
        (filled(kernels.experts(1, X, INNER)), (seeded(128, X), torch.tensor([128]), torch.ones(128))),
    ):
        layer.keep()
        before = layer(*x)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(2.0)
        assert torch.equal(layer(*x), before)
        layer.keep()
        assert not torch.equal(layer(*x), before)


def test_the_negative_control_cuts_gradients_into_blocks():
    """One token with large gradients takes the digits of 127 others (report appendix B.2)."""
    backend = Cpu(torch.float32)
    errors = {}
    dy = seeded(128, Y, seed=1)
    dy[0] *= 1e6
    for gradients in ("tiles", "blocks"):
        layer = filled(Fp8Kernels(backend, gradients=gradients).linear(X, Y))
        x = seeded(128, X).requires_grad_()
        layer(x).backward(dy)
        exact = dy @ layer.weight.detach()
        errors[gradients] = float((x.grad - exact)[1:].norm() / exact[1:].norm())
    assert errors["tiles"] < 0.06 and errors["blocks"] > 0.5


def test_no_gradient_no_memory(kernels):
    layer = filled(kernels.linear(X, Y, "finer"))
    with torch.no_grad():
        assert layer(seeded(5, X)).grad_fn is None
    with torch.inference_mode():
        assert layer(seeded(5, X)).shape == (5, Y)
    assert layer(seeded(0, X)).shape == (0, Y)


def test_the_choice_of_backends():
    assert type(choose_backend("plain")) is Reference and type(choose_backend("fast")) is Cpu
