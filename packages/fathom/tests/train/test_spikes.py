"""One bad batch costs one batch; many end the run, or take it back. Nothing else is ever left out."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fathom.checkpoint.find import latest, step_folder
from fathom.checkpoint.load import load_checkpoint
from fathom.config.recipe import Recipe
from fathom.config.train import LogConfig, SaveConfig, StabilityConfig
from fathom.train.loop import Trainer
from fathom.train.spikes import Skip, Watch
from fathom.train.start import start
from fathom.train.stop import Diverged

BAD = {"nan": "not finite", "inf": "not finite", "loss": "spike", "gradient": "spike"}


def noise(seed: int, level: float = 2.0, spread: float = 0.1) -> Iterator[float]:
    rng = random.Random(seed)
    while True:
        yield rng.gauss(level, spread)


def filled(config: StabilityConfig, seed: int = 0) -> Watch:
    watch = Watch(config)
    for _, loss in zip(range(config.window), noise(seed), strict=False):
        assert watch.judge(loss, math.exp(loss)) is None
    return watch


def test_what_is_far_above_the_recent_values_is_a_spike():
    for loss, norm, named in ((4.0, 7.0, "loss 4 is above"), (2.0, 90.0, "gradient norm 90 is above")):
        skip = filled(StabilityConfig()).judge(loss, norm)
        assert skip is not None and skip.kind == "spike" and skip.detail.startswith(named)
    assert filled(StabilityConfig()).judge(2.5, 13.0) is None
    assert filled(StabilityConfig()).judge(0.0, 1e-9) is None, "nothing is wrong with low values"


def test_there_are_no_spikes_without_a_full_window_or_with_the_check_off():
    watch = Watch(StabilityConfig(window=32))
    for _ in range(31):
        assert watch.judge(2.0, 1.0) is None
    assert watch.judge(1e9, 1e9) is None
    assert filled(StabilityConfig(spike=0.0)).judge(1e9, 1e9) is None


@pytest.mark.parametrize("loss,norm", [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan), (2.0, math.inf)])
def test_what_is_no_number_is_always_left_out_and_not_remembered(loss: float, norm: float):
    for config in (StabilityConfig(), StabilityConfig(spike=0.0)):
        watch, calm = filled(config), filled(config)
        for _ in range(9):
            skip = watch.judge(loss, norm)
            assert skip is not None and skip.kind == "not finite"
        assert watch.loss.values == calm.loss.values and watch.norm.values == calm.norm.values
        assert watch.skipped == 9 and not watch.exhausted
    assert Watch(StabilityConfig()).judge(loss, norm) is not None, "from the first step on"


@pytest.mark.parametrize("jump", [1.2, 2.0])
def test_a_lasting_change_of_level_is_followed(jump: float):
    """12 and 20 deviations up: a few steps are left out, then the new level is the level."""
    watch, skipped = filled(StabilityConfig()), []
    for step, loss in zip(range(300), noise(1, 2.0 + jump), strict=False):
        skipped += [step] * (watch.judge(loss, 7.0) is not None)
        assert not watch.exhausted
    assert 1 <= len(skipped) <= 10 and skipped[-1] < 12


def test_a_run_that_hardly_varies_has_no_spikes_of_a_percent():
    watch = Watch(StabilityConfig())
    for _ in range(200):
        watch.judge(2.0, 1.0)
    assert watch.judge(2.05, 1.05) is None
    assert watch.judge(2.2, 1.0) is not None


def test_batches_of_two_kinds_and_skewed_norms_are_normal():
    """As in the demo: easy and hard texts, norms that vary by a quarter, rarely threefold."""
    rng, watch = random.Random(0), Watch(StabilityConfig())
    for step in range(5000):
        level = 0.4 + 5.0 * math.exp(-step / 100)
        loss = level + (0.9 if rng.random() < 0.2 else 0.0) + rng.gauss(0, 0.05)
        norm = math.exp(rng.gauss(-1.2, 0.25)) * (3.0 if rng.random() < 0.01 else 1.0)
        assert watch.judge(loss, norm) is None, f"step {step}"


def test_saved_and_loaded_a_watch_judges_the_same():
    """Through JSON, at any point of a rough series, history and counts to the last bit."""
    rng = random.Random(3)
    values = [math.nan, math.inf, 1e6, *([2.0] * 20)]
    series = [(rng.choice(values) * rng.gauss(1, 0.05), rng.lognormvariate(0, 1)) for _ in range(400)]
    config = StabilityConfig(window=20, limit=3, spike=3.0)
    watch = Watch(config)
    for step, (loss, norm) in enumerate(series):
        again = Watch(config)
        again.load_state_dict(json.loads(json.dumps(watch.state_dict(), allow_nan=False)))
        assert again.judge(loss, norm) == watch.judge(loss, norm), step
        assert again.state_dict() == watch.state_dict() and again.exhausted == watch.exhausted
    assert watch.counts["spike"] > 5 < watch.counts["not finite"]


def test_a_summary_says_what_happened():
    watch = Watch(StabilityConfig())
    assert watch.summary(300) == "300 steps, no spikes, no rollbacks"
    watch.judge(math.nan, 1.0)
    watch.went_back()
    assert watch.summary(1300) == "1,300 steps, 1 skipped (1 not finite), 1 rollback"


# -- in a run ------------------------------------------------------------------------------------------------


def watched(recipe: Recipe, *, steps: int = 12, every: int = 0, **stability: int) -> Recipe:
    calm = StabilityConfig(**{"window": 8, "limit": 3, **stability})
    settings = {"steps": steps, "stability": calm, "save": SaveConfig(every=every, keep=9)}
    return replace(recipe, train=replace(recipe.train, log=LogConfig(samples=0), **settings))


def poison(trainer: Trainer, steps: Collection[int], kind: str) -> Trainer:
    """Let the batches of `steps` (counted from 1) do harm."""
    factor = {"nan": math.nan, "inf": math.inf, "loss": 60.0, "gradient": 1e6}[kind]

    def change(value: Tensor) -> Tensor:
        return value * factor if trainer.at.step + 1 in steps else value

    def hook(_module: object, _given: object, out: Tensor) -> Tensor:
        if kind != "gradient":
            return change(out)
        if out.requires_grad:
            out.register_hook(change)
        return out

    trainer.model.norm.register_forward_hook(hook)
    return trainer


def everything(run: Path) -> dict[str, Tensor]:
    """Weights, biases, averages and moments at the end of a run."""
    _, state, training = load_checkpoint(latest(run))
    return {
        **{f"w.{n}": t for n, t in state.items()},
        **{f"e.{n}": t for n, t in training.ema.items()},
        **training.optimizer,
    }


def same(a: Path, b: Path) -> bool:
    first, second = everything(a), everything(b)
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def read(run: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_batch_changes_nothing(recipe, tmp_path, kind: str):
    """The end is that of a run in which the update of that batch was not applied."""
    recipe = watched(recipe)
    poison(start(recipe, tmp_path / "bad", quiet=True), {10}, kind).train()
    other = start(recipe, tmp_path / "without", quiet=True)
    while other.at.step < 12:
        if other.at.step + 1 == 10:
            other.watch.judge = lambda loss, norm, where: Skip("spike", "by hand")
        other.step()
        other.watch.__dict__.pop("judge", None)
    other.save()
    assert same(tmp_path / "bad", tmp_path / "without")
    lines = read(tmp_path / "bad", "metrics.jsonl")
    assert [line["stability/skipped"] for line in lines[:12]] == [0] * 9 + [1] * 3
    assert lines[9]["train/loss"] is None or kind not in ("nan", "inf")
    tokens = [line["train/tokens"] for line in lines[:12]]
    assert all(b > a for a, b in pairwise(tokens)), "the data moves on"
    (event,) = [e for e in read(tmp_path / "bad", "events.jsonl") if e["kind"] != "saved"]
    assert (event["step"], event["kind"]) == (10, BAD[kind])


def test_the_average_and_the_biases_stay_too(recipe, tmp_path):
    trainer = poison(start(watched(recipe), tmp_path, quiet=True), {2}, "nan")
    trainer.step()
    before = {n: t.clone() for n, t in trainer.optimizer.averages().items()}
    assert trainer.step()["stability/skipped"] == 1
    after = trainer.optimizer.averages()
    assert any(n.endswith("router.bias") for n in after)
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert not any(p.grad is not None and p.grad.any() for p in trainer.model.parameters())


def test_too_many_bad_batches_stop_the_run_with_exit_3(recipe, tmp_path):
    trainer = poison(start(watched(recipe, limit=2), tmp_path, quiet=True), range(1, 99), "nan")
    with pytest.raises(Diverged, match=r"3 of the last 3 steps .*Fix: lower train\.lr") as stopped:
        trainer.train()
    assert stopped.value.exit_code == 3 and latest(tmp_path) is None and trainer.at.step == 3
    assert [(e["step"], e["kind"]) for e in read(tmp_path, "events.jsonl")] == [
        (1, "not finite"), (2, "not finite"), (3, "not finite"), (3, "diverged"),
    ]  # fmt: skip


def test_with_a_limit_of_0_the_first_bad_batch_stops_the_run(recipe, tmp_path):
    trainer = start(watched(recipe, limit=0), tmp_path, quiet=True)
    trainer.model.embed.weight.data.fill_(torch.nan)
    with pytest.raises(Diverged, match=r"at step 1: .*loss nan.*Fix: "):
        trainer.train()


def test_bad_batches_far_apart_do_not_add_up(recipe, tmp_path):
    trainer = poison(start(watched(recipe, limit=1, steps=20), tmp_path, quiet=True), {3, 12, 20}, "nan")
    trainer.train()
    assert trainer.run.last["stability/skipped"] == 3


def test_a_run_goes_back_and_leaves_the_offending_batches_out(recipe, tmp_path):
    """Weights of step 4, data of step 7: as if batches 5 to 7 had not been there."""
    recipe = watched(recipe, every=4, limit=1, rollbacks=1)
    trainer = poison(start(recipe, tmp_path / "back", quiet=True), {6, 7}, "nan")
    trainer.train()
    assert trainer.run.last["stability/rollbacks"] == 1 and trainer.at.step == 12
    without = start(recipe, tmp_path / "without", quiet=True)
    while without.at.step < 4:
        without.step()
    without.data.next(3 * recipe.train.batch_size)
    without.at.step = 7
    while without.at.step < 12:
        without.step()
    without.save()
    assert same(tmp_path / "back", tmp_path / "without")
    kinds = [(e["step"], e["kind"]) for e in read(tmp_path / "back", "events.jsonl")]
    assert kinds == [
        (4, "saved"), (6, "not finite"), (7, "not finite"), (7, "rollback"), (8, "saved"), (12, "saved"),
    ]  # fmt: skip


def test_a_run_goes_back_past_a_damaged_checkpoint(recipe, tmp_path, caplog):
    recipe = watched(recipe, every=2, limit=1, rollbacks=1)
    trainer = poison(start(recipe, tmp_path, quiet=True), {6, 7}, "nan")
    damage_at(trainer, 7, tmp_path, [4, 6])
    trainer.train()
    (back,) = [e for e in read(tmp_path, "events.jsonl") if e["kind"] == "rollback"]
    assert "to the weights of step-000002" in back["detail"]
    assert "step-000004" in caplog.text and "step-000006" in caplog.text


def damage_at(trainer: Trainer, step: int, run: Path, which: list[int]) -> None:
    """Alter a byte of some checkpoints' weights when `step` begins."""
    left = list(which)

    def change(*_: object) -> None:
        while left and trainer.at.step + 1 == step:
            flip(step_folder(run, left.pop()) / "model.safetensors")

    trainer.model.register_forward_pre_hook(change)


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["none", "used up", "all damaged"])
def test_without_a_way_back_the_run_has_diverged(recipe, tmp_path, how: str):
    every = 100 if how == "none" else 2
    trainer = start(watched(recipe, every=every, limit=0, rollbacks=1), tmp_path, quiet=True)
    poison(trainer, {5, 9} if how == "used up" else {5}, "nan")
    if how == "all damaged":
        damage_at(trainer, 5, tmp_path, [2, 4])
    with pytest.raises(Diverged, match=r"diverged at step (5|9).*Fix: "):
        trainer.train()
    assert trainer.watch.counts["rollback"] == (1 if how == "used up" else 0)


Change = Callable[[Trainer], Trainer]


@pytest.mark.parametrize("stop_after", [6, 10])
def test_a_resumed_run_decides_the_same(recipe, tmp_path, stop_after: int):
    """Stopped between bad batches, and after a way back: the same verdicts, the same bits."""
    recipe = watched(recipe, every=4, limit=1, rollbacks=1, steps=14)
    bad: Change = lambda trainer: poison(trainer, {6, 7, 13}, "nan")  # noqa: E731
    bad(start(recipe, tmp_path / "whole", quiet=True)).train()
    first = bad(start(recipe, tmp_path / "parts", quiet=True))
    with pytest.raises(InterruptedError):
        die_at(first, stop_after).train()
    bad(start(recipe, tmp_path / "parts", resume=True, quiet=True)).train()
    assert same(tmp_path / "whole", tmp_path / "parts")
    whole, parts = (load_checkpoint(latest(tmp_path / n))[2] for n in ("whole", "parts"))
    assert whole.extra == parts.extra and whole.loader == parts.loader and whole.tokens == parts.tokens
    assert whole.extra["watch"]["counts"] == {"spike": 0, "not finite": 3, "rollback": 1}


def die_at(trainer: Trainer, step: int) -> Trainer:
    """Let the process fail while it computes the step after `step`."""

    def fail(*_: object) -> None:
        if trainer.at.step == step:
            raise InterruptedError

    trainer.model.register_forward_pre_hook(fail)
    return trainer


def test_a_checkpoint_of_before_there_was_a_watch_begins_a_new_history(recipe, tmp_path, caplog):
    first = start(watched(recipe), tmp_path, quiet=True)
    first.step()
    folder = first.save()
    trainer_json = folder / "state" / "trainer.json"
    table = json.loads(trainer_json.read_text())
    table["extra"] = {k: v for k, v in table["extra"].items() if k in ("optimizer_steps", "precision")}
    trainer_json.write_text(json.dumps(table))
    (folder / "manifest.json").unlink()
    again = start(watched(recipe), tmp_path, resume=True, quiet=True)
    assert "has no manifest.json" in caplog.text
    assert again.at.step == 1 and not again.watch.loss.values and again.watch.skipped == 0
    again.train()
