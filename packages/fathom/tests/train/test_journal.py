"""What a run writes of itself is whole, well-formed, and goes on after a kill without gap or repetition."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from fathom.checkpoint.find import latest
from fathom.config.data import DataConfig
from fathom.config.dump import to_dict
from fathom.config.errors import DiskError
from fathom.config.load import load_recipe
from fathom.config.train import LogConfig, SaveConfig
from fathom.data.build import build_corpus
from fathom.data.corpus import CorpusMeta
from fathom.data.tokenizer import Tokenizer
from fathom.model.generate import generate
from fathom.train.about import write_about
from fathom.train.balance import routers
from fathom.train.log import Journal, Lines, Sample
from fathom.train.samples import _prompts
from fathom.train.start import start


def with_log(recipe, steps: int = 6, **settings: Any):
    return replace(recipe, train=replace(recipe.train, steps=steps, log=LogConfig(**settings)))


def saved_every(steps: int, recipe):
    return replace(recipe, train=replace(recipe.train, save=SaveConfig(every=steps)))


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# -- the files -----------------------------------------------------------------------------------------------


LEFT = [b"", b'{"step": 4, "x"', b'{"step": 4}', b"\0\0\0\n", b"[]\n", b'{"x": 1}\n{"step": 2}\n', b"\xff\n"]


@pytest.mark.parametrize("left", LEFT)
def test_lines_of_steps_that_a_killed_run_lost_are_cut_away(tmp_path: Path, left: bytes):
    file = Lines(tmp_path / "x.jsonl", step=0)
    for step in (1, 2, 3):
        file.write(step, {"x": step / 3, "ü": "ö"})
    file.close()
    with file.path.open("ab") as raw:
        raw.write(left)
    again = Lines(file.path, step=2)
    again.write(3, {"x": "again"})
    again.close()
    assert [line["x"] for line in read(file.path)] == [1 / 3, 2 / 3, "again"]


def test_a_line_is_with_the_system_before_the_call_returns(tmp_path: Path):
    file = Lines(tmp_path / "x.jsonl", step=0)
    file.write(1, {"x": "y" * 100_000})
    assert read(file.path)[0]["x"] == "y" * 100_000
    file.close()


def test_values_that_are_no_number_become_null(tmp_path: Path):
    journal = Journal(tmp_path, step=0)
    journal.metrics(1, {"a": math.nan, "b": -math.inf, "c": 1.0})
    journal.close()
    assert read(tmp_path / "metrics.jsonl") == [{"step": 1, "a": None, "b": None, "c": 1.0}]


@pytest.mark.parametrize("name", ["metrics", "events"])
def test_a_full_disk_is_one_line_and_closing_hides_it_not(tmp_path: Path, name: str):
    """/dev/full is a disk that is always full."""
    journal = Journal(tmp_path, step=0)
    lines = getattr(journal, f"_{name}")
    lines.close()
    lines._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    with pytest.raises(DiskError, match=rf"the disk is full: .*{name}\.jsonl.*Fix: "), closing(journal):
        journal.event(1, "saved", "")
        journal.metrics(1, {"a": 1.0})


def test_texts_of_an_evaluation_that_was_cut_short_are_made_again(tmp_path: Path):
    journal = Journal(tmp_path, step=0)
    journal.evaluation(5, 2.0, [Sample("a", "b")])
    journal._samples.write(10, {"prompt": "half", "text": ""})  # killed before the figure itself
    journal.close()
    again = Journal(tmp_path, step=10)
    assert again.evaluated == -1
    again.evaluation(10, 1.0, [Sample("c", "d")])
    again.close()
    assert [line["prompt"] for line in read(tmp_path / "samples.jsonl")] == ["a", "c"]
    with closing(Journal(tmp_path, step=10)) as third:
        assert third.evaluated == 10


# -- of a run ------------------------------------------------------------------------------------------------


def test_loads_count_every_token_of_the_steps_since_the_last_line(recipe, tmp_path):
    trainer = start(with_log(recipe, steps=7, every=3), tmp_path, quiet=True)
    trainer.train()
    lines = read(tmp_path / "loads.jsonl")
    assert [line["step"] for line in lines] == [3, 6, 7]
    moe = recipe.model.moe
    metrics = read(tmp_path / "metrics.jsonl")
    tokens = {line["step"]: line["train/tokens"] for line in metrics if "train/tokens" in line}
    since = [tokens[3], tokens[6] - tokens[3], tokens[7] - tokens[6]]
    for line, new in zip(lines, since, strict=True):
        assert len(line["counts"]) == len(routers(trainer.model)) == 2
        trunk, mtp = (sum(counts) for counts in line["counts"])
        assert all(len(counts) == moe.num_experts for counts in line["counts"])
        assert trunk == new * moe.experts_per_token and 0.9 * trunk < mtp < trunk  # MTP's last has no target


def test_loads_go_on_over_a_stop(recipe, tmp_path):
    recipe = with_log(recipe, steps=7, every=3)
    start(recipe, tmp_path / "whole", quiet=True).train()
    first = start(recipe, tmp_path / "parts", quiet=True)
    while first.at.step < 2:
        first.step()
    first.save()
    start(recipe, tmp_path / "parts", resume=True, quiet=True).train()
    whole, parts = ((tmp_path / n / "loads.jsonl").read_text() for n in ("whole", "parts"))
    assert whole == parts


def test_samples_are_what_the_model_makes_of_held_out_texts(recipe, corpus, tmp_path):
    trainer = start(with_log(recipe, eval_every=3, samples=2), tmp_path, quiet=True)
    trainer.train()
    lines = read(tmp_path / "samples.jsonl")
    assert [line["step"] for line in lines] == [3, 3, 6, 6]
    tokenizer, (series,) = Tokenizer.load(corpus), CorpusMeta.load(corpus).series(corpus, "held_out")
    for number, line in enumerate(lines[2:]):
        ids = series.piece(number, 0, min(24, int(series.length_D[number]))).tolist()
        assert line["prompt"] == tokenizer.decode(ids) != ""
        told = list(generate(trainer.model, torch.tensor([ids]), max_tokens=48, tokens=tokenizer.size))
        ids = [int(t) for t in told]
        end = ids.index(tokenizer.eos) if tokenizer.eos in ids else len(ids)
        assert line["text"] == tokenizer.decode(ids[:end])


def test_no_measure_disturbs_the_run(recipe, tmp_path):
    """Evaluations, texts and records change no bit of what is learned."""
    busy, calm = {"every": 1, "eval_every": 1, "samples": 3}, {"samples": 0}
    for name, settings in {"busy": busy, "calm": calm}.items():
        start(with_log(recipe, **settings), tmp_path / name, quiet=True).train()
    busy, calm = (latest(tmp_path / name) for name in ("busy", "calm"))
    for name in ("model.safetensors", "state/optimizer.safetensors", "state/ema.safetensors"):
        assert (busy / name).read_bytes() == (calm / name).read_bytes()


def test_an_evaluation_that_a_kill_took_away_is_made_up_for(recipe, tmp_path):
    recipe = saved_every(3, with_log(recipe, eval_every=3))

    def die(_: object) -> float:
        raise InterruptedError

    for _ in range(2):  # the second time, before any step
        trainer = start(recipe, tmp_path, resume=True, quiet=True)
        trainer.run.held_out = die
        with pytest.raises(InterruptedError):
            trainer.train()
        assert trainer.at.step == 3
    start(recipe, tmp_path, resume=True, quiet=True).train()
    lines = read(tmp_path / "metrics.jsonl")
    assert [(line["step"], "val/bpb" in line) for line in lines] == [
        (1, False), (2, False), (3, False), (3, True), (4, False), (5, False), (6, False), (6, True),
    ]  # fmt: skip
    start(recipe, tmp_path, resume=True, quiet=True).train()
    assert read(tmp_path / "metrics.jsonl") == lines


def test_events_tell_the_story(recipe, tmp_path):
    recipe = saved_every(3, recipe)
    start(recipe, tmp_path, quiet=True).train()
    start(recipe, tmp_path, resume=True, quiet=True).train()
    assert read(tmp_path / "events.jsonl") == [
        {"step": 3, "kind": "saved", "detail": "step-000003"},
        {"step": 6, "kind": "saved", "detail": "step-000006"},
        {"step": 6, "kind": "resumed", "detail": "from step-000006"},
    ]


def test_a_damaged_checkpoint_is_passed_over_said_and_noted(recipe, tmp_path, caplog):
    recipe = saved_every(3, recipe)
    start(recipe, tmp_path, quiet=True).train()
    weights = latest(tmp_path) / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    again = start(recipe, tmp_path, resume=True, quiet=True)
    assert again.at.step == 3
    (said,) = [record.getMessage() for record in caplog.records]
    assert str(weights) in said and "has changed" in said and "\n" not in said
    again.train()
    kinds = {e["kind"]: e["detail"] for e in read(tmp_path / "events.jsonl")}
    assert "from step-000003" in kinds["resumed"] and str(weights) in kinds["resumed"]
    assert latest(tmp_path, resumable=True).name == "step-000006"
    start(recipe, tmp_path, resume=True, quiet=True)


def test_about_says_what_the_run_is(recipe, tmp_path):
    loaded = load_recipe("tiny", ["train.lr=0.5"])
    trainer = start(recipe, tmp_path, quiet=True, title="try", origin=loaded.origin)
    trainer.train()
    about = json.loads((tmp_path / "about.json").read_text())
    assert about["title"] == "try" and about["recipe"] == json.loads(json.dumps(to_dict(recipe)))
    assert about["origin"]["train.lr"] == "command line" and about["origin"]["train.steps"] == "recipe tiny"
    state = trainer.model.state_dict().items()
    assert about["parameters"]["total"] == sum(t.numel() for n, t in state if not n.startswith("mtp."))
    assert about["machine"].keys() == {
        "device", "precision", "products", "peak_flops", "threads", "cpu", "cores", "memory_bytes",
    }  # fmt: skip
    assert about["machine"]["memory_bytes"] > 1e8 and about["machine"]["cores"] >= 1
    assert about["flops_per_token"] > 6 * about["parameters"]["active"] / 2
    later = write_about(tmp_path, about | {"started": "2999-01-01", "title": "later"})
    assert later["started"] == about["started"] and later["title"] == "later"
    (tmp_path / "about.json").write_text("{")
    assert write_about(tmp_path, about | {"started": "2999-01-01"})["started"] == "2999-01-01"


def test_the_end_says_how_it_went(recipe, tmp_path, capsys):
    start(recipe, tmp_path).train()
    said = capsys.readouterr().err
    assert "6 steps, no spikes, no rollbacks; saved " in said


# -- TensorBoard and wandb -----------------------------------------------------------------------------------


def test_tensorboard_gets_the_same_scalars_loads_and_texts(recipe, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = with_log(recipe, every=3, eval_every=3)
    start(recipe, tmp_path, quiet=True).train()
    events = EventAccumulator(str(tmp_path / "tensorboard"), {"histograms": 0})
    events.Reload()
    for name in ("train/loss", "train/grad_norm", "stability/skipped", "val/bpb"):
        written = [(r["step"], r[name]) for r in read(tmp_path / "metrics.jsonl") if name in r]
        assert [e.step for e in events.Scalars(name)] == [step for step, _ in written]
        assert [e.value for e in events.Scalars(name)] == pytest.approx([v for _, v in written], rel=1e-6)
    assert [e.step for e in events.Histograms("moe/load")] == [3, 6]
    histogram = events.Histograms("moe/load")[0].histogram_value
    assert histogram.num == 8 and histogram.sum == pytest.approx(8)
    (tag,) = [t for t in events.Tags()["tensors"] if t.startswith("samples/0")]
    prompts = [s for s in read(tmp_path / "samples.jsonl") if s["step"] == 6]
    shown = events.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
    assert prompts[0]["prompt"] in shown and prompts[0]["text"] in shown


class FakeWandB(ModuleType):
    """As much of wandb as is called, and what was called."""

    def __init__(self, mode: str = "online", logged_in: bool = False, broken: str = "") -> None:
        super().__init__("wandb")
        self.__spec__ = SimpleNamespace(name="wandb")
        self.mode, self.logged_in, self.broken = mode, logged_in, broken
        self.given: dict[str, Any] = {}
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.finished = 0

    def setup(self) -> Any:
        return SimpleNamespace(settings=SimpleNamespace(mode=self.mode))

    def login(self, *, prompt: bool, verify: bool) -> bool:
        assert not prompt and not verify
        return self.logged_in

    def init(self, **given: Any) -> Any:
        if self.broken == "init":
            raise RuntimeError("no room\nfor another line")
        self.given = given
        return self

    def log(self, row: Mapping[str, Any], *, step: int) -> None:
        if self.broken == "log" and step == 3:
            raise OSError("gone")
        self.rows.append((step, dict(row)))

    def finish(self) -> None:
        self.finished += 1
        if self.broken == "finish":
            raise OSError("gone")

    def Html(self, text: str) -> str:
        return text

    def Histogram(self, values: list[float]) -> list[float]:
        return values


def wandb(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> FakeWandB:
    fake = FakeWandB(**settings)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_gets_the_same_scalars_loads_and_texts(recipe, tmp_path, monkeypatch):
    fake = wandb(monkeypatch)
    start(with_log(recipe, every=3), tmp_path / "run", quiet=True).train()
    told: dict[int, dict[str, Any]] = {}
    for step, row in fake.rows:
        told.setdefault(step, {}).update(row)
    for line in read(tmp_path / "run" / "metrics.jsonl"):
        step = line.pop("step")
        assert line.items() <= told[step].items()
    assert len(told[3]["moe/load"]) == 8 and told[6]["samples/0"].startswith("<pre>")
    assert fake.finished == 1 and fake.given["name"] == "run" and fake.given["dir"] == str(tmp_path / "run")
    assert fake.given["config"]["train"]["lr"] == recipe.train.lr
    first = fake.given["id"]
    start(with_log(recipe, every=3, steps=7), tmp_path / "run", resume=True, quiet=True).train()
    assert fake.given["id"] == first and fake.given["resume"] == "allow", "the same run goes on"


@pytest.mark.parametrize(
    "mode,logged_in,expected",
    [
        ("online", False, "offline"), ("online", True, "online"), ("offline", True, "offline"),
        ("disabled", False, "disabled"), ("disabled", True, "disabled"),
    ],
)  # fmt: skip
def test_wandb_is_offline_unless_the_user_said_or_is_logged_in(
    recipe, tmp_path, monkeypatch, mode, logged_in, expected
):
    fake = wandb(monkeypatch, mode=mode, logged_in=logged_in)
    start(with_log(recipe, steps=1, samples=0), tmp_path, quiet=True).train()
    assert fake.given["mode"] == expected


@pytest.mark.parametrize("broken", ["init", "log", "finish"])
def test_whatever_wandb_does_the_run_goes_on_with_one_line(recipe, tmp_path, monkeypatch, capsys, broken):
    fake = wandb(monkeypatch, broken=broken)
    start(with_log(recipe, every=3, samples=0), tmp_path).train()
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("wandb")]
    assert len(said) == 1 and ("no room for another line" in said[0] or "gone" in said[0])
    assert latest(tmp_path).name == "step-000006"
    assert {"init": 0, "log": 2, "finish": 6}[broken] == max([step for step, _ in fake.rows], default=0)


def test_wandb_can_be_left_out(recipe, tmp_path, monkeypatch):
    fake = wandb(monkeypatch)
    start(with_log(recipe, steps=1, samples=0, wandb="off"), tmp_path, quiet=True).train()
    assert not fake.given and not fake.rows


def test_samples_begin_with_a_text_of_each_source(tmp_path):
    for name in ("apple", "zebra"):
        texts = [f"{name} {name} number {i} {name}\n" for i in range(40)] + [f"{name} again and again\n"] * 40
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    sources = tuple(str(tmp_path / f"{name}.jsonl") for name in ("apple", "zebra"))
    build_corpus(DataConfig(sources=sources, held_out=0.5, vocab_size=300, workers=1), tmp_path / "corpus")
    tokenizer = Tokenizer.load(tmp_path / "corpus")
    prompts = [tokenizer.decode(ids) for ids in islice(_prompts(tmp_path / "corpus", 12, tokenizer.eos), 60)]
    assert "apple" in prompts[0] and "zebra" in prompts[1]
    assert len(set(prompts)) == len(prompts)
