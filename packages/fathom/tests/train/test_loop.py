"""Runs learn, stop in good order and go on bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fathom.checkpoint.find import latest
from fathom.checkpoint.load import load_checkpoint
from fathom.config.dump import to_toml
from fathom.config.errors import ConfigError, DataError
from fathom.config.model import MTPConfig
from fathom.config.train import LogConfig, SaveConfig, StabilityConfig
from fathom.model.generate import generate
from fathom.train import machine
from fathom.train.start import start
from fathom.train.stop import Diverged, Stopped, only_run_in


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(latest(run))[1]


def with_train(recipe, **settings):
    return replace(recipe, train=replace(recipe.train, **settings))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_a_resumed_run_ends_in_the_same_bits(recipe, tmp_path):
    """Accumulation, EMA, MTP and balancing on; stopped twice."""
    start(recipe, tmp_path / "whole", quiet=True).train()
    for stop_after in (2, 5, 6):
        trainer = start(recipe, tmp_path / "parts", resume=True, quiet=True)
        while trainer.at.step < stop_after:
            trainer.step()
        trainer.save()
    whole, parts = (load_checkpoint(latest(tmp_path / name)) for name in ("whole", "parts"))
    assert same(whole[1], parts[1])
    assert same(whole[2].ema, parts[2].ema) and same(whole[2].optimizer, parts[2].optimizer)
    assert whole[2].loader == parts[2].loader and whole[2].tokens == parts[2].tokens
    biases = [t for n, t in whole[1].items() if n.endswith("router.bias")]
    assert biases and all((b != 0).any() for b in biases)
    assert not same(whole[1], whole[2].ema)


def test_training_lowers_the_loss_and_writes_its_metrics(recipe, tmp_path):
    trainer = start(with_train(recipe, steps=40, log=LogConfig(eval_every=20)), tmp_path, quiet=True)
    first = trainer.run.held_out(trainer.model)
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(1, 21), 20, *range(21, 41), 40]
    assert lines[-2]["train/loss"] < lines[0]["train/loss"] - 1.0
    assert lines[-2]["mtp/loss"] < lines[0]["mtp/loss"] - 0.5
    assert set(lines[20]) == set(lines[-1]) == {"step", "val/bpb"}
    assert lines[-1]["val/bpb"] < lines[20]["val/bpb"] < first
    assert {"perf/mfu", "perf/tokens_per_sec", "moe/max_violation", "train/grad_norm"} <= set(lines[0])


def test_old_checkpoints_are_dropped_and_the_newest_stay(recipe, tmp_path):
    start(with_train(recipe, save=SaveConfig(every=1, keep=2)), tmp_path, quiet=True).train()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-000005", "step-000006"]


def test_two_processes_cannot_train_in_one_folder(recipe, tmp_path):
    trainer = start(recipe, tmp_path, quiet=True)
    with only_run_in(tmp_path), pytest.raises(ConfigError, match=r"another process trains in .*Fix: "):
        trainer.train()
    trainer.train()
    assert latest(tmp_path).name == "step-000006"


def test_a_signal_during_the_last_evaluation_is_heeded_and_the_run_is_saved(recipe, tmp_path):
    trainer = start(recipe, tmp_path, quiet=True)

    def interrupted(_: object) -> float:
        signal.raise_signal(signal.SIGTERM)
        return 1.0

    trainer.run.held_out = interrupted
    with pytest.raises(Stopped) as stopped:
        trainer.train()
    assert stopped.value.exit_code == 75 and latest(tmp_path).name == "step-000006"


def test_a_run_that_dies_in_its_last_evaluation_is_saved(recipe, tmp_path):
    trainer = start(recipe, tmp_path, quiet=True)

    def out_of_memory(_: object) -> float:
        raise MemoryError

    trainer.run.held_out = out_of_memory
    with pytest.raises(MemoryError):
        trainer.train()
    assert latest(tmp_path).name == "step-000006"


def test_the_average_follows_the_weights(recipe, tmp_path):
    """EMA: a <- d a + (1 - d) w after each step."""
    trainer = start(recipe, tmp_path, quiet=True)
    expected = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    for _ in range(3):
        trainer.step()
        for name, weight in trainer.model.named_parameters():
            expected[name] = 0.9 * expected[name] + 0.1 * weight.detach()
    averages = trainer.optimizer.averages()
    for name, average in expected.items():
        torch.testing.assert_close(averages[name], average, rtol=1e-5, atol=1e-6)


def test_the_batch_grows_over_the_run(recipe, tmp_path):
    grow = replace(recipe.train.schedule, batch_start=0.25, batch_full=0.5)
    trainer = start(with_train(recipe, schedule=grow, batch_size=8, steps=8), tmp_path, quiet=True)
    tokens = [trainer.step()["train/tokens"] for _ in range(8)]
    rows = [round((b - a) / 48) for a, b in zip([0, *tokens], tokens, strict=False)]
    assert rows[0] <= 2 < rows[3] <= 8 and rows[-1] > 6


def test_a_network_without_experts_or_mtp_trains(recipe, tmp_path):
    plain = replace(recipe.model, dense_layers=2, mtp=MTPConfig(depth=0))
    trainer = start(replace(recipe, model=plain), tmp_path, quiet=True)
    trainer.train()
    assert trainer.run.last["moe/max_violation"] == trainer.run.last["mtp/loss"] == 0.0


def test_scalars_go_to_tensorboard_when_it_is_installed(recipe, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    start(recipe, tmp_path, quiet=True).train()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in written if "train/loss" in line]
    assert [e.value for e in events.Scalars("train/loss")] == pytest.approx(losses, rel=1e-6)


@pytest.mark.gpu
def test_a_gpu_trains_in_bf16_resumes_and_talks(recipe, tmp_path):
    wide = replace(recipe.model, hidden_size=64, moe=replace(recipe.model.moe, expert_size=32))
    recipe = with_train(replace(recipe, model=wide), precision="bf16", device="cuda", steps=20)
    first = start(recipe, tmp_path, quiet=True)
    early = [first.step()["train/loss"] for _ in range(10)]
    first.save()
    second = start(recipe, tmp_path, resume=True, quiet=True)
    second.train()
    assert second.run.last["train/loss"] < early[0]
    prompt_BT = torch.tensor([[1, 5, 7]], device="cuda")
    cached = torch.stack(list(generate(second.model, prompt_BT, max_tokens=8)))
    whole = torch.stack(list(generate(second.model, prompt_BT, max_tokens=8, use_cache=False)))
    assert torch.equal(cached, whole)


def test_time_is_a_budget(recipe, tmp_path):
    trainer = start(with_train(recipe, steps=0, minutes=0.02), tmp_path, quiet=True)
    at = trainer.train()
    assert at.step >= 1 and at.elapsed_s >= 1.2


def test_a_run_is_not_overwritten(recipe, tmp_path):
    start(with_train(recipe, steps=1), tmp_path, quiet=True).train()
    with pytest.raises(ConfigError, match=r"already holds a run .*Fix: add --resume auto"):
        start(recipe, tmp_path, quiet=True)


def test_another_model_cannot_resume_a_run(recipe, tmp_path):
    start(with_train(recipe, steps=1), tmp_path, quiet=True).train()
    other = replace(recipe, model=replace(recipe.model, hidden_size=64))
    with pytest.raises(ConfigError, match=r"model\.hidden_size was 32, now 64.*Fix: "):
        start(other, tmp_path, resume=True, quiet=True)


def test_a_corpus_of_another_recipe_is_not_used_silently(recipe, tmp_path):
    own = replace(recipe, data=replace(recipe.data, corpus=""))
    start(with_train(own, steps=1), tmp_path, quiet=True)
    other = replace(own, data=replace(own.data, documents=151, vocab_size=390))
    with pytest.raises(ConfigError, match=r"built with another data\.documents, data\.vocab_size.*Fix: "):
        start(other, tmp_path, quiet=True)


def test_a_finished_run_is_left_as_it_is(recipe, tmp_path):
    start(recipe, tmp_path, quiet=True).train()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").rglob("*")}
    lines = (tmp_path / "metrics.jsonl").read_text()
    start(recipe, tmp_path, resume=True, quiet=True).train()
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").rglob("*")} == before
    assert (tmp_path / "metrics.jsonl").read_text() == lines


def test_auto_precision_is_measured_once_and_kept(recipe, tmp_path, monkeypatch):
    """A resumed run goes on in the precision it began with, whatever is faster that day."""
    recipe = with_train(recipe, precision="auto")
    monkeypatch.setattr(machine, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(machine, "matmul_rate", lambda _, dtype: 1.0 + (dtype == torch.float32))
    first = start(recipe, tmp_path, quiet=True)
    assert first.machine.precision == "fp32"
    first.step()
    first.save()
    monkeypatch.setattr(machine, "matmul_rate", lambda _, dtype: 1.0 + (dtype == torch.bfloat16))
    assert start(recipe, tmp_path / "new", quiet=True).machine.precision == "bf16"
    assert start(recipe, tmp_path, resume=True, quiet=True).machine.precision == "fp32"
    monkeypatch.setattr(machine, "multiplies_bf16", lambda: False)
    assert machine.survey("cpu").precision == "fp32", "whatever the measurement says of conversions"


def test_an_optimizer_without_a_moment_is_named(recipe, tmp_path):
    trainer = start(recipe, tmp_path, quiet=True)
    moments, steps = trainer.optimizer.state()
    del moments["exp_avg.head.weight"]
    with pytest.raises(DataError, match=r"lacks exp_avg\.head\.weight\. Fix: "):
        trainer.optimizer.load(moments, steps, None)


def test_a_tokenizer_that_does_not_match_the_model_is_refused(recipe, tmp_path):
    small = replace(recipe, model=replace(recipe.model, vocab_size=100))
    with pytest.raises(DataError, match=r"the tokenizer has \d+ ids, but the model has rows for 100.*Fix: "):
        start(small, tmp_path, quiet=True)


@pytest.mark.parametrize("sent,code", [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_saves_and_the_run_goes_on_to_the_same_bits(recipe, tmp_path, sent, code):
    """A real process, stopped from outside at whatever step it is."""
    recipe = with_train(recipe, steps=30, log=LogConfig(every=1))
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    command = [sys.executable, "-m", "fathom", "train", str(tmp_path / "recipe.toml")]
    run = tmp_path / "run"
    process = subprocess.Popen([*command, "--out", str(run)], stderr=subprocess.PIPE, text=True)
    wait_for(run / "metrics.jsonl", process)
    process.send_signal(sent)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert "--resume auto" in said and "Traceback" not in said
    step = load_checkpoint(latest(run))[2].step
    assert 1 <= step < 30
    resumed = [*command, "--out", str(run), "--resume", "auto", "--quiet"]
    again = subprocess.run(resumed, timeout=240, check=False)
    assert again.returncode == 0
    start(recipe, tmp_path / "whole", quiet=True).train()
    assert same(weights(run), weights(tmp_path / "whole"))


def wait_for(metrics: Path, process: subprocess.Popen[str]) -> None:
    """Until the run has written its first step."""
    for _ in range(1200):
        if metrics.exists() and metrics.read_text().count("\n") >= 2:
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    pytest.fail("no step was written")


def test_the_record_of_a_run_without_a_checkpoint_is_not_wiped(recipe, tmp_path):
    recipe = with_train(recipe, steps=3, stability=StabilityConfig(limit=0))
    trainer = start(recipe, tmp_path, quiet=True)
    trainer.model.norm.weight.data.fill_(torch.nan)
    with pytest.raises(Diverged, match="start anew"):
        trainer.train()
    kept = (tmp_path / "metrics.jsonl").read_bytes()
    assert kept
    with pytest.raises(ConfigError, match="left no checkpoint.*Fix: "):
        start(recipe, tmp_path, quiet=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == kept
    start(recipe, tmp_path, quiet=True, resume=True).train()


def test_who_may_not_train_changes_no_recipe(recipe, tmp_path):
    start(recipe, tmp_path, quiet=True, resume=True)
    with only_run_in(tmp_path):
        other = start(with_train(recipe, lr=1e-5), tmp_path, quiet=True, resume=True)
        with pytest.raises(ConfigError, match="another process trains"):
            other.train()
    assert not (tmp_path / "recipe.toml").exists()
    start(recipe, tmp_path, quiet=True, resume=True).train()
    assert (tmp_path / "recipe.toml").read_text() == to_toml(recipe)
