"""`fathom plan train` prices V3's run, says how it came to the price, and what would change it."""

from __future__ import annotations

import json
import re

import pytest

from fathom.cli.main import main

V3 = ["plan", "train", "v3", "--cluster", "h800x2048", "--tokens", "14.8T"]


def out(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words]) == 0
    return capsys.readouterr().out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, *V3, "--json")
    found = json.loads(text)
    assert text.count("\n") == 1
    needed = {"gpu_hours", "gpu_hours_per_trillion_tokens", "usd", "gflop_per_token", "memory_gib_per_gpu",
              "mfu", "bubble_share"}  # fmt: skip
    assert needed < set(found) and found["precision"] == "fp8" and found["tokens"] == 14.8e12
    assert [one["name"] for one in found["ladder"]][-2:] == ["bubble", "update"]


def test_the_text_has_the_same_figures(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(out(capsys, *V3, "--json"))
    text = out(capsys, *V3)
    assert f"14.8T tokens: {found['gpu_hours']:,.0f} GPU-hours" in text and f"${found['usd']:,.0f}" in text
    assert f"{found['memory_gib_per_gpu']:,.1f} of 79.6 GiB a GPU\n" in text and "does not fit" not in text


def test_the_gap_to_the_published_run_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(out(capsys, *V3, "--json"))
    text = out(capsys, *V3, "--explain", "gpu_hours")
    rows = {words[1]: words[0] for line in text.splitlines() if len(words := line.split()) > 1}
    assert rows["published"] == "1,984" or "    1,984  published steady state: " in text
    assert "    1,543  published: 2,664,000 GPU-hours; 180K H800 GPU-hours" in text
    gap = re.search(r"([+-][0-9.]+)%  the gap", text)
    assert gap and float(gap[1]) == pytest.approx(100 * (found["tokens_per_s_per_gpu"] / 1543.2 - 1), abs=0.1)
    for one in found["ladder"]:
        assert f"{one['rate']:,.0f}  {one['name']}: {one['why']}" in text


def test_memory_adds_up_and_constants_have_sources(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(out(capsys, *V3, "--json"))
    text = out(capsys, *V3, "--explain", "memory").partition("the fullest\n")[2]
    parts = [float(line.split()[0]) for line in text.splitlines()]
    assert sum(parts) == pytest.approx(found["memory_gib_per_gpu"], abs=0.03)
    text = out(capsys, *V3, "--explain", "constants")
    assert re.search(r"network.ib_bytes_per_s +5e\+10  DeepSeek-V3 report, 3.2.2", text)


def test_sensitivity(capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, *V3, "--sensitivity").partition("if there were")[2]
    rows = {line[:36].strip(): line[36:].split() for line in text.splitlines()[1:]}
    assert rows["half the bandwidth between nodes"][1].startswith("+")
    assert rows["1F1B instead"][1].startswith("+") and len(rows) == 5
    one = ["plan", "train", "moonlight", "--cluster", "h800x1", "--tokens", "1B", "parallel.schedule=1f1b"]
    text = out(capsys, *one, "--sensitivity").partition("if there were")[2]
    assert "pipeline ranks" not in text and "twice as many experts" in text


def test_another_preset_and_another_size(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["plan", "train", "v2-lite", "--cluster", "h800x16", "--tokens", "500B", "parallel.ep=8",
             "parallel.dp=2", "train.batch_size=1024", "train.schedule.batch_start=1", "--json"]  # fmt: skip
    found = json.loads(out(capsys, *small))
    assert found["model"] == "v2-lite" and found["cluster"] == "H800 x 16" and found["tokens"] == 5e11
    half = json.loads(out(capsys, *[w.replace("2048", "1024") for w in V3], "parallel.dp=1", "--json"))
    assert half["days"] > 90


@pytest.mark.parametrize(("words", "message"), [
    ([*V3[:4], "h800x1000"], "are not 1000 devices. Fix: give a multiple of 1024"),
    ([*V3[:4], "b200x8"], "no cluster b200x8 is known. Fix: give a kind and a number"),
    ([*V3[:-1], "many"], "--tokens many is no number. Fix: write it as 14.8T"),
    ([*V3, "--explain", "days"], "--explain days is unknown. Fix: "),
    ([*V3, "--recompute", "all"], "--recompute all is unknown. Fix: "),
    (["plan", "train", "v4", "--cluster", "h800x8"], "Fix: "),
    ([*V3, "train.batch_size=15361"], "Fix: set train.batch_size to 15616"),
])  # fmt: skip
def test_what_is_wrong_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out
