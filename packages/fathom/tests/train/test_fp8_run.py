"""A run in FP8: learns, resumes to the bit, keeps its moments in bf16, and names the layer of a NaN."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fathom.checkpoint.find import latest
from fathom.config.errors import ConfigError
from fathom.config.load import load_recipe
from fathom.config.recipe import Recipe
from fathom.config.train import OptimConfig
from fathom.ops.fp8.experts import Fp8Experts
from fathom.ops.fp8.linear import Fp8Linear
from fathom.ops.fp8.swiglu import Fp8SwiGLU
from fathom.ops.linear import FastLinear
from fathom.train.loop import Trainer
from fathom.train.machine import Machine
from fathom.train.narrow_adamw import NarrowAdamW
from fathom.train.optimizer import Optimizer
from fathom.train.precision import moments_of
from fathom.train.start import prepare_corpus, start

SMALL = (
    "train.precision=fp8", "train.seq_len=32", "train.batch_size=4", "train.micro_batch=2",
    "data.documents=60", "train.schedule.warmup_steps=2", "train.log.samples=0",
    "train.optim.ema=0.9", "data.workers=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp8")
    return prepare_corpus(load_recipe("tiny", list(SMALL)).recipe, folder)


def recipe(corpus: Path, steps: int, *more: str) -> Recipe:
    return load_recipe("tiny", [*SMALL, f"train.steps={steps}", f"data.corpus={corpus}", *more]).recipe


def everything(trainer: Trainer) -> dict[str, Tensor]:
    moments, _ = trainer.optimizer.state()
    averages = trainer.optimizer.averages() or {}
    return {**trainer.optimizer.weights(), **moments, **{f"ema.{k}": v for k, v in averages.items()}}


def test_where_fp8_is_and_where_it_is_not(corpus, tmp_path):
    model = start(recipe(corpus, 2), tmp_path, quiet=True).model
    kinds = {name: type(module) for name, module in model.named_modules()}
    assert kinds["head"] is FastLinear and kinds["mtp.0.project"] is FastLinear
    assert kinds["layers.1.ffn.experts"] is Fp8Experts and kinds["layers.1.ffn.shared"] is Fp8SwiGLU
    assert kinds["layers.0.ffn"] is Fp8SwiGLU and kinds["mtp.0.block.attention.q_b"] is Fp8Linear
    finer = {name for name, module in model.named_modules() if getattr(module, "finer", False)}
    assert finer == {f"{b}.attention.out" for b in ("mtp.0.block", *(f"layers.{i}" for i in range(4)))}
    assert model.layers[1].attention.q_a.weight.dtype == torch.float32, "FP8 is made of fp32 masters"
    assert model.head.weight.dtype == model.embed.weight.dtype == torch.bfloat16


def test_a_run_resumes_bit_for_bit(corpus, tmp_path):
    whole = start(recipe(corpus, 6), tmp_path / "whole", quiet=True)
    whole.train()
    first = start(recipe(corpus, 6, "train.save.every=3"), tmp_path / "cut", quiet=True)
    for _ in range(3):
        first.step()
    first.save()
    again = start(recipe(corpus, 6, "train.save.every=3"), tmp_path / "cut", quiet=True, resume=True)
    assert again.at.step == 3
    again.train()
    for name, tensor in everything(whole).items():
        assert torch.equal(tensor, everything(again)[name]), name
    assert {t.dtype for n, t in whole.optimizer.state()[0].items()} == {torch.bfloat16}
    saved = latest(tmp_path / "cut", resumable=True)
    assert saved is not None


def test_it_learns_as_bf16_does(corpus, tmp_path):
    """A glance; `fathom reproduce fp8` is the measurement."""
    losses = {}
    for precision in ("bf16", "fp8"):
        trainer = start(recipe(corpus, 12, f"train.precision={precision}"), tmp_path / precision, quiet=True)
        losses[precision] = [trainer.step()["train/loss"] for _ in range(12)]
    bf16, fp8 = (torch.tensor(losses[p]) for p in ("bf16", "fp8"))
    assert fp8[-3:].mean() < 0.9 * fp8[:3].mean()
    assert ((fp8 - bf16).abs() / bf16).mean() < 0.02


def test_weights_are_quantised_once_a_step_from_fp32(corpus, tmp_path):
    trainer = start(recipe(corpus, 4), tmp_path, quiet=True)
    layer = trainer.model.layers[1].attention.q_a
    before = layer.quantized()
    assert layer.quantized() is before
    trainer.step()
    trainer.step()
    after = layer.quantized()
    assert after is not before
    made = layer.shared.backend.blocks(trainer.optimizer.weights()["layers.1.attention.q_a.weight"])
    assert torch.equal(after.q.view(torch.uint8), made.q.view(torch.uint8))


def test_a_nan_is_reported_with_the_name_of_the_layer(corpus, tmp_path):
    trainer = start(recipe(corpus, 4, "train.stability.limit=1"), tmp_path, quiet=True)
    trainer.step()
    bad = trainer.optimizer.buffers.view(trainer.optimizer.buffers.master, "layers.2.ffn.experts.up")
    bad[0, 0, 0] = float("nan")
    trainer.optimizer.buffers.refresh()
    trainer.step()
    assert trainer.watch.last is not None and trainer.watch.last.kind == "not finite"
    assert trainer.watch.last.detail.endswith("first in layers.2.ffn.experts: its weights")
    bad[0, 0, 0] = 0.0
    trainer.optimizer.buffers.refresh()
    skipped = trainer.watch.skipped
    trainer.step()
    assert trainer.watch.skipped == skipped, "what was seen in one step is not held against the next"


@pytest.mark.parametrize("ops", ["plain", "fast"])
def test_the_reference_can_train_too(corpus, tmp_path, ops):
    trainer = start(recipe(corpus, 2, f"train.ops={ops}"), tmp_path, quiet=True)
    backend = trainer.model.layers[1].ffn.experts.shared.backend
    assert backend.name.startswith({"plain": "FP8 reference", "fast": "FP8 multiplied as"}[ops])
    assert torch.isfinite(torch.tensor(trainer.step()["train/loss"]))


def test_the_negative_control_is_a_setting(corpus, tmp_path):
    trainer = start(recipe(corpus, 2, "train.fp8.gradients=blocks"), tmp_path, quiet=True)
    assert trainer.model.layers[0].ffn.shared.gradients == "blocks"


def test_the_record_says_fp8(corpus, tmp_path):
    trainer = start(recipe(corpus, 1), tmp_path, quiet=True)
    trainer.train()
    folder = latest(tmp_path, resumable=True)
    assert folder is not None and trainer.machine.precision == "fp8" and "fp8" in trainer.machine.describe()
    assert '"precision": "fp8"' in (folder / "state" / "trainer.json").read_text()


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_moments_in_bf16_are_those_of_fp32_rounded(clip):
    """Against AdamW written out (arXiv 1711.05101), moments rounded after each step."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(300, 400, bias=False), torch.nn.LayerNorm(400, bias=False))
    config = OptimConfig(clip=clip)
    narrow = Optimizer(model, config, moments=torch.bfloat16)
    assert isinstance(narrow.adamw, NarrowAdamW)
    master = narrow.buffers.master.clone()
    peer = torch.nn.Parameter(master.clone())
    rates = torch.full_like(master, config.weight_decay)
    rates[narrow.buffers.vectors :] = 0.0
    m, v = torch.zeros_like(master), torch.zeros_like(master)
    for step in range(1, 6):
        grad = torch.randn(len(master), generator=torch.Generator().manual_seed(step)) * 10.0 ** -step
        narrow.buffers.grad.copy_(grad)
        norm = narrow.clip()
        narrow.step(1e-2)
        g = grad / max(norm / clip, 1.0) if clip else grad
        m, v = config.beta1 * m + (1 - config.beta1) * g, config.beta2 * v + (1 - config.beta2) * g * g
        hat = (v / (1 - config.beta2**step)).sqrt() + config.eps
        with torch.no_grad():
            peer.mul_(1 - 1e-2 * rates).sub_(1e-2 * (m / (1 - config.beta1**step)) / hat)
        m, v = m.bfloat16().float(), v.bfloat16().float()
        moved = (narrow.buffers.master - peer).detach().abs()
        assert (moved > 1e-7).float().mean() < 0.01
        assert moved.max() <= 1e-2 * 2**-7, "a moment may round to its other neighbour, no further"
    state = [narrow.adamw.state[p] for p in narrow._flat]
    assert all(s["exp_avg"].dtype == s["exp_avg_sq"].dtype == torch.bfloat16 for s in state)


def test_moments_of_either_kind_can_be_asked_for(corpus, tmp_path):
    wide = start(recipe(corpus, 1, "train.optim.moments=fp32"), tmp_path / "a", quiet=True)
    assert isinstance(wide.optimizer.adamw, torch.optim.AdamW)
    narrow = start(
        recipe(corpus, 1, "train.precision=fp32", "train.optim.moments=bf16"), tmp_path / "b", quiet=True
    )
    assert isinstance(narrow.optimizer.adamw, NarrowAdamW)


def test_a_slow_second_moment_stays_in_fp32():
    """With beta2 above 0.98 a step adds less than bf16 can show."""
    fp8 = Machine(torch.device("cpu"), torch.bfloat16, 1e9, fp8=True)
    assert moments_of(OptimConfig(beta2=0.98), fp8) == torch.bfloat16
    assert moments_of(OptimConfig(beta2=0.999), fp8) == torch.float32
    assert moments_of(OptimConfig(moments="bf16"), fp8._replace(fp8=False)) == torch.bfloat16
    with pytest.raises(ConfigError, match=r"beta2=0.999 would lose .* Fix: set moments=fp32"):
        OptimConfig(beta2=0.999, moments="bf16")


@pytest.mark.parametrize("beta2, least, most", [(0.95, 0.03, 0.08), (0.98, 0.08, 0.17), (0.999, 0.65, 0.82)])
def test_how_far_a_second_moment_in_bf16_follows(beta2, least, most):
    """Steady squares of gradients, from zero on: the guide's figures."""
    square, v = torch.linspace(1.0, 2.0, 129)[:-1], torch.zeros(128)
    for _ in range(20_000):
        v = (v + (1 - beta2) * (square - v)).bfloat16().float()
    short = 1 - v / square
    assert least < short.min() and short.max() < most, (short.min(), short.max())


def test_recomputation_changes_no_bit_of_an_fp8_run(corpus, tmp_path):
    runs = []
    for recompute in (False, True):
        asked = recipe(corpus, 2, f"train.recompute={str(recompute).lower()}")
        trainer = start(asked, tmp_path / str(recompute), quiet=True)
        trainer.step(), trainer.step()
        runs.append(everything(trainer))
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


def test_a_run_may_go_on_in_another_precision(corpus, tmp_path):
    """Masters and moments are what is saved, whatever multiplied them."""
    for steps, precision in ((1, "fp8"), (2, "fp32"), (3, "fp8")):
        asked = recipe(corpus, steps, f"train.precision={precision}")
        start(asked, tmp_path, quiet=True, resume=True).train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3]


@pytest.mark.gpu
def test_a_gpu_trains_in_fp8_as_a_cpu_does(corpus, tmp_path):
    losses = {}
    for device in ("cpu", "cuda"):
        trainer = start(recipe(corpus, 10, f"train.device={device}"), tmp_path / device, quiet=True)
        losses[device] = torch.tensor([trainer.step()["train/loss"] for _ in range(10)])
    assert ((losses["cuda"] - losses["cpu"]).abs() / losses["cpu"]).max() < 0.02
