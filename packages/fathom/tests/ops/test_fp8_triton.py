"""FP8 for GPUs, as far as a machine without one can tell.

The kernels run in Triton's interpreter and compile for Hopper; what `scaled_mm` is handed is held against the
conditions that torch's CUDA code checks. The battery itself is `test_fp8_backends.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fathom.ops.fp8 import hopper, triton_gemm, triton_quantize
from fathom.ops.fp8.reference import Reference
from fathom.ops.fp8.tiles import BLOCK, E4M3, Quantized, quantize_blocks, quantize_columns, quantize_tiles

BATTERY = Path(__file__).with_name("test_fp8_backends.py")
ROOT = Path(__file__).parents[4]
AT_LEAST = 40  # tests of the battery

needs_triton = pytest.mark.skipif(triton_quantize.triton is None, reason="triton is not installed")


@needs_triton
def test_the_battery_passes_in_the_interpreter():
    """In a process of its own: Triton decides when a kernel is defined whether it will be interpreted."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(BATTERY)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    passed = re.search(r"^(\d+) passed in", done.stdout, re.MULTILINE)
    assert passed and int(passed[1]) >= AT_LEAST, f"not everything ran: {done.stdout[-500:]}"


def test_without_triton_everything_imports_and_says_what_is_missing():
    program = "from fathom.ops.fp8 import hopper; print(hopper.why_not())"
    hidden = f"import sys; sys.modules['triton'] = None; {program}"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=True)
    assert done.stdout == "triton cannot be imported\n"


def test_a_machine_without_a_fitting_device_is_told_why(monkeypatch):
    monkeypatch.setattr(triton_quantize, "triton", object())
    monkeypatch.setattr(torch.version, "cuda", "12.9")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert hopper.why_not() == "there is no CUDA device" and not hopper.available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    assert hopper.why_not() == "E4M3 needs compute capability 8.9, not 8.0" and not hopper.available()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 9))
    assert hopper.why_not() == "" and hopper.available()


class NoDevice:
    """What Triton asks a driver for when it compiles and does not run: compute capability 9.0."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0


@pytest.fixture
def compiled(tmp_path, monkeypatch) -> dict[str, list[str]]:
    """PTX of every kernel that would have been launched; of a tuned one, with the first of its settings."""
    if triton_quantize.triton is None or os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("triton is not installed, or interprets")
    from triton.runtime import driver

    made: dict[str, list[str]] = {}

    def compile_instead(name: str, kernel: Any, grid: Any, arguments: Any, settings: Any) -> None:
        for config in getattr(kernel, "configs", [])[:1]:
            settings |= {"num_warps": config.num_warps, "num_stages": config.num_stages}
            kernel = kernel.fn
        made.setdefault(name, []).append(kernel.warmup(*arguments, grid=grid, **settings).asm["ptx"])

    class Launches:
        def __init__(self, name: str, kernel: Any) -> None:
            self.given = name, kernel

        def __getitem__(self, grid: Any) -> Any:
            return lambda *arguments, **settings: compile_instead(*self.given, grid, arguments, settings)

    for module, name in (
        (triton_quantize, "_quantize_patch"),
        (triton_quantize, "_swiglu_patch"),
        (triton_quantize, "_dequantize_patch"),
        (triton_gemm, "_patch"),
    ):
        monkeypatch.setattr(module, name, Launches(name, getattr(module, name)))
    monkeypatch.setattr(driver, "_active", NoDevice())
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    return made


def test_quantisers_compile_for_hopper_with_exact_division(compiled):
    """Whole lines of memory at a time, no division but IEEE's, nothing flushed to zero."""
    backend = hopper.Hopper(scaled_mm=False)
    x = torch.zeros(256, 512, dtype=torch.bfloat16)
    tiles = backend.tiles(x)
    backend.tiles_to_columns(tiles, power_of_two=True)
    backend.blocks(x)
    backend.swiglu(x, x, torch.zeros(256))
    backend.dequantize(tiles, torch.bfloat16)
    assert [len(compiled[f"_{kind}_patch"]) for kind in ("quantize", "swiglu", "dequantize")] == [3, 1, 1]
    for name, versions in compiled.items():
        for ptx in versions:
            assert not re.search(r"div\.(full|approx)|\.ftz", ptx), f"{name} divides or flushes inexactly"
            assert "div.rn.f32" in ptx or name == "_dequantize_patch"
            for access in ("ld", "st"):
                assert re.search(access + r"\.global\S*\.v4", ptx), f"{name} moves less than 16 bytes"


@pytest.mark.parametrize("kind", ["forward", "grouped_backward", "add_grouped_outer"])
def test_products_compile_to_hoppers_tensor_cores(compiled, kind):
    """E4M3 `wgmma` for four times K = 32, which is a run, and operands that arrive by asynchronous copies."""
    backend = hopper.Hopper(scaled_mm=False)
    tiles = Quantized(torch.zeros(256, 512).to(E4M3), torch.ones(256, 4))
    columns = Quantized(torch.zeros(512, 256).to(E4M3).T, torch.ones(2, 512))
    blocks = Quantized(torch.zeros(2, 512, 512).to(E4M3), torch.ones(2, 4, 4))
    count = torch.tensor([128, 128])
    if kind == "forward":
        backend.forward(tiles, Quantized(blocks.q[0], blocks.scale[0]), torch.bfloat16)
    elif kind == "grouped_backward":
        backend.grouped_backward(tiles, blocks, count, torch.bfloat16)
    else:
        backend.add_grouped_outer(torch.zeros(2, 512, 512), columns, columns, count)
    for ptx in compiled["_patch"]:
        multiplied = re.findall(r"wgmma\.mma_async\S*", ptx)
        assert multiplied and len(multiplied) % 4 == 0
        assert set(multiplied) == {"wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3"}
        assert "cp.async" in ptx, "nothing is copied ahead"


def strict_scaled_mm(*operands: Any, output_dtype: torch.dtype) -> Tensor:
    """Refuses what torch's CUDA code refuses (ATen/native/cuda/ScaledBlas.cpp), then multiplies."""
    a, b, scale_a, kind_a, scale_b, kind_b = operands
    (M, K), N = a.shape, b.shape[1]
    kinds = F.ScalingType
    assert a.stride() == (K, 1) and b.stride() == (1, K), "both operands have K last in memory"
    assert K % 16 == 0 and N % 16 == 0
    G = -(-K // BLOCK)
    assert kind_a == kinds.BlockWise1x128
    assert scale_a.shape == (M, G) and scale_a.stride() == (1, M)
    if kind_b == kinds.BlockWise128x128:
        L4 = -(-G // 4) * 4
        assert scale_b.shape == (L4, -(-N // BLOCK)) and scale_b.stride() == (1, L4)
        of_b = scale_b[:G].repeat_interleave(BLOCK, 1)[:, :N].T
    else:
        assert kind_b == kinds.BlockWise1x128 and scale_b.shape == (N, G) and scale_b.stride() == (1, N)
        of_b = scale_b
    left = a.double() * scale_a.repeat_interleave(BLOCK, 1)[:, :K]
    right = b.T.double() * of_b.repeat_interleave(BLOCK, 1)[:, :K]
    return (left @ right.T).to(output_dtype)


@pytest.fixture
def scaled(monkeypatch) -> hopper.Hopper:
    monkeypatch.setattr(F, "scaled_mm", strict_scaled_mm)
    for name in ("product", "add_product"):
        monkeypatch.setattr(triton_gemm, name, None)
    return hopper.Hopper(scaled_mm=True)


def test_scaled_mm_is_handed_what_it_takes(scaled, generator):
    """Fprop, Dgrad and Wgrad of a map with a ragged block, in the layouts that torch checks."""
    N, X, Y = 256, 640, 384
    x, dy, w = (torch.randn(shape, generator=generator).pow(3) for shape in ((N, X), (N, Y), (Y, X)))
    tiles, dy_tiles, blocks = quantize_tiles(x), quantize_tiles(dy), quantize_blocks(w)
    columns = [Quantized(q.q.T.contiguous().T, q.scale) for q in map(quantize_columns, (dy, x))]
    reference, near = Reference(), {"rtol": 1e-4, "atol": 1e-2}
    want = reference.forward(tiles, blocks, torch.float32)
    torch.testing.assert_close(scaled.forward(tiles, blocks, torch.float32), want, **near)
    want = reference.backward(dy_tiles, blocks, torch.float32)
    torch.testing.assert_close(scaled.backward(dy_tiles, blocks, torch.float32), want, **near)
    into = torch.ones(Y, X)
    scaled.add_outer(into, *columns)
    want = torch.ones(Y, X)
    reference.add_outer(want, *columns)
    torch.testing.assert_close(into, want, **near)


def test_a_trial_trusts_right_numbers_only(monkeypatch):
    def refuses(*operands: Any, output_dtype: torch.dtype) -> Tensor:
        raise ValueError("another cuBLAS")

    def wrong(a: Tensor, b: Tensor, scale_a: Tensor, *others: Any, output_dtype: torch.dtype) -> Tensor:
        mixed_up = scale_a.flip(1).T.contiguous().T
        return strict_scaled_mm(a, b, mixed_up, *others, output_dtype=output_dtype)

    for stand_in, trusted in ((strict_scaled_mm, True), (refuses, False), (wrong, False)):
        monkeypatch.setattr(F, "scaled_mm", stand_in)
        assert hopper.trial("cpu") is trusted


@pytest.mark.parametrize("shape", [(100, 256, 256), (128, 200, 256), (128, 128, 256), (128, 256, 100)])
def test_ragged_shapes_do_not_go_to_scaled_mm(shape):
    M, K, N = shape
    a, b = (Quantized(*quantize_tiles(torch.ones(rows, K))) for rows in (M, N))
    assert not hopper.scaled_mm_takes(a, b)
    whole, other = (quantize_tiles(torch.ones(rows, 256)) for rows in (144, 320))
    assert hopper.scaled_mm_takes(whole, other)


def test_w_is_transposed_once_for_each_quantisation():
    backend = hopper.Hopper(scaled_mm=False)
    w = quantize_blocks(torch.arange(200.0 * 300).reshape(200, 300))
    first, again = backend._across(w), backend._across(w)
    assert first.q.data_ptr() == again.q.data_ptr() and first.q.is_contiguous()
    assert torch.equal(first.q.view(torch.uint8).T, w.q.view(torch.uint8))
    assert torch.equal(first.scale.T, w.scale)
    w.q.view(torch.uint8).bitwise_not_()
    assert torch.equal(backend._across(w).q.view(torch.uint8).T, w.q.view(torch.uint8))
