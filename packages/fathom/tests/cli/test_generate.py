"""`generate` and its options: what reaches the draws, what is printed, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from fathom.checkpoint.find import latest
from fathom.checkpoint.load import load_model
from fathom.cli.main import main
from fathom.data.tokenizer import Tokenizer
from fathom.model.generate import generate


def test_generate_prints_tokens_and_text_as_json_greedily(run, capsys):
    command = ["generate", "--model", str(run), "--prompt", "Mia had", "--max-tokens", "12"]
    assert main([*command, "--temperature", "0", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    model, tokenizer = load_model(run), Tokenizer.load(latest(run))
    ids = torch.tensor([[tokenizer.bos, *tokenizer.encode("Mia had")]])
    plain = [int(t) for t in generate(model, ids, max_tokens=12, tokens=tokenizer.size, use_cache=False)]
    plain = plain[: plain.index(tokenizer.eos)] if tokenizer.eos in plain else plain
    assert said.pop("finish_reason") in ("stop", "length")
    assert said == {"tokens": plain, "text": tokenizer.decode(plain), "seed": None}
    assert main([*command, "--temperature", "0"]) == 0
    assert capsys.readouterr().out == said["text"] + "\n"


def written(capsys, run: Path, *words: str) -> dict[str, Any]:
    """What `generate --json` prints."""
    command = ["generate", "--model", str(run), "--prompt", "Mia", "--max-tokens", "20", "--json"]
    assert main([*command, *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_seed_names_one_text_with_drafts_or_without(run, capsys):
    hot = ["--temperature", "1.5", "--seed"]
    first = written(capsys, run, *hot, "1")
    assert first == written(capsys, run, *hot, "1", "--speculate", "off")
    assert first == written(capsys, run, *hot, "1", "--speculate", "on", "--draft-tokens", "3")
    assert first["tokens"] != written(capsys, run, *hot, "2")["tokens"]


def test_without_a_seed_texts_differ_and_each_tells_its_own(run, capsys):
    first, second = (written(capsys, run, "--temperature", "1.5") for _ in range(2))
    assert first["tokens"] != second["tokens"]
    assert written(capsys, run, "--temperature", "1.5", "--seed", str(first["seed"])) == first


def test_options_reach_the_draws(run, capsys):
    """Each makes hot drawing greedy, or greedy writing other than it was."""
    greedy = written(capsys, run, "--temperature", "0", "--ignore-eos")["tokens"]
    assert len(set(greedy)) < len(greedy) == 20
    hot = ["--temperature", "3", "--ignore-eos"]
    for words in (["--top-k", "1"], ["--min-p", "1"], ["--top-p", "1e-9"]):
        assert written(capsys, run, *hot, *words)["tokens"] == greedy, words
    for name in ("--presence-penalty", "--frequency-penalty"):
        tokens = written(capsys, run, "--temperature", "0", "--ignore-eos", name, "100")["tokens"]
        assert len(set(tokens)) == len(tokens) == 20, name
    repeats = written(capsys, run, "--temperature", "0", "--ignore-eos", "--repetition-penalty", "9")
    assert repeats["tokens"] != greedy


def test_stop_texts_end_it_before_them(run, capsys):
    whole = written(capsys, run, "--temperature", "0", "--ignore-eos")["text"]
    stop = whole[7:10]
    said = written(capsys, run, "--temperature", "0", "--ignore-eos", "--stop", "no such", "--stop", stop)
    assert (said["text"], said["finish_reason"]) == (whole[: whole.index(stop)], "stop")


def test_logprobs_are_of_each_token(run, capsys):
    said = written(capsys, run, "--logprobs", "2", "--seed", "4")
    assert [entry["token"] for entry in said["logprobs"]] == said["tokens"]
    assert all(len(entry["top"]) == 2 and entry["logprob"] <= 0 for entry in said["logprobs"])


def test_several_answers_are_printed_in_order(run, capsys):
    options = ["--n", "3", "--seed", "4", "--temperature", "1.5"]
    answers = written(capsys, run, *options)["answers"]
    assert len({tuple(answer["tokens"]) for answer in answers}) == 3
    assert main(["generate", "--model", str(run), "--prompt", "Mia", "--max-tokens", "20", *options]) == 0
    expected = [f"--- {i + 1} of 3 ---\n{answer['text']}\n" for i, answer in enumerate(answers)]
    assert capsys.readouterr().out == "".join(expected)


def test_a_form_is_kept(run, capsys, tmp_path):
    pytest.importorskip("llguidance")
    assert re.fullmatch("[0-9]{3} kites?", written(capsys, run, "--regex", "[0-9]{3} kites?")["text"])
    schema = json.dumps({"enum": ["Mia", "Leo"]})
    (tmp_path / "schema.json").write_text(schema)
    for given in (schema, str(tmp_path / "schema.json")):
        assert json.loads(written(capsys, run, "--json-schema", given)["text"]) in ("Mia", "Leo")


def test_verbose_says_on_stderr_what_computes_and_how_fast(run, capsys):
    command = ["generate", "--model", str(run), "--prompt", "Mia", "--max-tokens", "9", "--seed", "1"]
    assert main(command) == 0
    quiet = capsys.readouterr()
    assert main([*command, "--verbose", "--speculate", "on", "--ignore-eos"]) == 0
    said = capsys.readouterr()
    assert quiet.err == "" and said.out == quiet.out
    assert "MTP always" in said.err and "the same bits in any company" in said.err
    assert re.search(r"\nanswer   9 tokens, [\d,]+ a second, the first after [\d.]+ s\n", said.err)
    assert re.search(r"\ndrafts   \d+ of \d+ accepted \(\d+%\), \d\.\d\d tokens per trunk pass\n", said.err)
    stats = written(capsys, run, "--verbose", "--speculate", "off")["stats"]
    assert (stats["drafted"], stats["prompt_tokens"]) == (0, 2) and stats["seconds"] > 0


def test_ctrl_c_keeps_what_was_written(run, capsys, interrupted):
    command = ["generate", "--model", str(run), "--prompt", "Mia", "--temperature", "0", "--ignore-eos"]
    assert main([*command, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    interrupted(5)
    assert main([*command, "--json", "--speculate", "off"]) == 130
    said = json.loads(capsys.readouterr().out)
    assert said["finish_reason"] == "cancelled" and said["tokens"] == whole["tokens"][:5]
    interrupted(5)
    assert main([*command, "--speculate", "off"]) == 130
    assert capsys.readouterr() == (said["text"] + "\n", "")
    interrupted(5, signal.SIGTERM)
    assert main([*command, "--json", "--speculate", "off"]) == 75
    assert json.loads(capsys.readouterr().out) == said


def test_a_second_ctrl_c_does_not_wait(run, capsys, interrupted):
    interrupted(2, times=2)
    assert main(["generate", "--model", str(run), "--prompt", "Mia", "--json"]) == 130
    assert capsys.readouterr().out == ""


def test_an_answer_that_cannot_go_on_is_one_line_and_status_1(run, capsys, monkeypatch):
    from fathom.engine.answer import Answer
    from fathom.engine.sample import NoTokenError

    def nothing(*_: object) -> None:
        raise NoTokenError("the model's logits are not finite. Fix: check the weights")

    monkeypatch.setattr(Answer, "choose", nothing)
    said = "fathom: the model's logits are not finite. Fix: check the weights\n"
    for command in (["generate", "--prompt", "Mia"], ["chat", "--message", "Mia"]):
        assert main([*command, "--model", str(run)]) == 1
        assert capsys.readouterr().err == said
