"""`train`, `generate` and `chat` as a person meets them, bad input included."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from fathom.checkpoint.find import latest
from fathom.checkpoint.load import load_model
from fathom.cli.main import main
from fathom.data.chat import encode_chat
from fathom.data.tokenizer import Tokenizer
from fathom.model.generate import generate


def refused(capsys, *words: str) -> str:
    """The one line of a command that ends with status 2."""
    assert main(list(words)) == 2
    said = capsys.readouterr()
    assert said.err.startswith("fathom: ") and "Fix: " in said.err and said.err.count("\n") == 1, said.err
    return said.err


def test_a_run_leaves_what_others_build_on(run):
    step = run / "checkpoints" / "step-000003"
    assert {"model.safetensors", "config.json", "tokenizer.json", "state"} <= {p.name for p in step.iterdir()}
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["step"] == 1
    assert (run / "recipe.toml").exists()


def test_a_checkpoint_folder_is_a_model_too(run, capsys):
    command = ["generate", "--prompt", "Mia", "--temperature", "0", "--json"]
    assert main([*command, "--model", str(run)]) == 0
    assert main([*command, "--model", str(latest(run))]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_chat_answers_and_remembers_and_takes_commands(run, capsys, monkeypatch):
    lines = ["Hello", "/temp 0", "Who are you?", "/regen", "/temp hot", "/nonsense", "/reset", "Hi", "/exit"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    assert main(["chat", "--model", str(run), "--max-tokens", "5"]) == 0
    said = capsys.readouterr()
    assert said.out.count("> ") >= len(lines)
    assert "/temp hot is no temperature. Fix: " in said.err and "/reset" in said.out
    assert "the same bits in any company\nTalking with" in said.err


def conversation(capsys, monkeypatch, run: Path, *lines: str, options: tuple[str, ...] = ()) -> str:
    """What is on stdout after these lines."""
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    assert main(["chat", "--model", str(run), "--max-tokens", "12", "--temperature", "1.5", *options]) == 0
    return capsys.readouterr().out


def test_a_conversation_under_a_seed_is_said_again_and_each_answer_draws_anew(run, capsys, monkeypatch):
    lines, seed = ["Hello", "/regen", "/stats"], ("--seed", "3")
    first = conversation(capsys, monkeypatch, run, *lines, options=seed)
    answers = first.split("> ")[1:3]
    assert answers[0] != answers[1]
    again = conversation(capsys, monkeypatch, run, *lines, options=(*seed, "--speculate", "off"))
    assert again.split("> ")[1:3] == answers
    assert conversation(capsys, monkeypatch, run, *lines).split("> ")[1:3] != answers
    alone = ["chat", "--model", str(run), "--max-tokens", "12", "--temperature", "1.5", "--message", "Hello"]
    assert main([*alone, *seed]) == 0
    assert capsys.readouterr() == (answers[0], "")


def test_chat_says_how_fast_it_was(run, capsys, monkeypatch):
    long = "tell me more about the kite and the park where Mia was " * 6
    options = ("--speculate", "on", "--seed", "3")
    said = conversation(capsys, monkeypatch, run, "/stats", long, "/regen", "/stats", options=options)
    assert "> no answer yet\n" in said
    assert re.search(r"answer   \d+ tokens, [\d,]+ a second, the first after [\d.]+ s\n", said)
    assert re.search(r"prompt   \d+ tokens, [1-9]\d* of them cached\n", said), "the same prompt once more"
    assert re.search(r"drafts   \d+ of \d+ accepted \(\d+%\), \d\.\d\d tokens per trunk pass\n", said)
    assert re.search(r"so far   2 answered under --seed 3; drafts \d+ of \d+ accepted", said)


def test_ctrl_c_cuts_an_answer_short_and_the_conversation_goes_on(run, capsys, monkeypatch, interrupted):
    interrupted(4)
    options = ("--speculate", "off", "--seed", "3")
    said = conversation(capsys, monkeypatch, run, "Hello", "/stats", "Go on", "/stats", options=options)
    assert "answer   4 tokens" in said and "so far   2 answered" in said


def test_your_own_text_in_three_commands(tmp_path, capsys, monkeypatch):
    """The README's, on a few paragraphs and a few steps."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-text").mkdir()
    for number in range(8):
        days = (f"It was the {word} day of week {number}." for word in ("first", "second", "last") * 9)
        (tmp_path / "my-text" / f"{number}.txt").write_text(" ".join(days))
    data = ["data.sources=my-text", "data.held_out=0.2", "data.workers=1", "data.vocab_size=400"]
    assert main(["data", "build", "own-text", *data, "--out", "corpora/mine"]) == 0
    run = ["data.corpus=corpora/mine", "train.steps=2", "train.seq_len=32", "--out", "runs/mine", "--quiet"]
    assert main(["train", "own-text", *run]) == 0
    assert main(["generate", "--model", "runs/mine", "--prompt", "It was", "--max-tokens", "4"]) == 0


def test_a_prompt_from_stdin_must_be_utf8(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Mia had")))
    assert main(["generate", "--model", str(run), "--prompt", "-", "--max-tokens", "2"]) == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Mia \xff")))
    assert "byte 4" in refused(capsys, "generate", "--model", str(run), "--prompt", "-")


def test_one_message_is_answered_with_the_template(run, capsys):
    command = ["chat", "--model", str(run), "--message", "Hi", "--temperature", "0", "--max-tokens", "6"]
    assert main(command) == 0
    model, tokenizer = load_model(run), Tokenizer.load(latest(run))
    ids, _ = encode_chat(tokenizer, [{"role": "user", "content": "Hi"}], generation_prompt=True)
    drawn = [int(t) for t in generate(model, torch.tensor([ids]), max_tokens=6, tokens=tokenizer.size)]
    drawn = drawn[: drawn.index(tokenizer.eos)] if tokenizer.eos in drawn else drawn
    assert capsys.readouterr().out == tokenizer.decode(drawn) + "\n"


def test_a_long_conversation_drops_its_oldest_turns(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("tell me more about the kite\n" * 30))
    assert main(["chat", "--model", str(run), "--max-tokens", "20"]) == 0
    assert "Fix: " not in capsys.readouterr().err


def test_a_message_that_cannot_fit_is_refused(run, capsys):
    assert "too long" in refused(capsys, "chat", "--model", str(run), "--message", "kite " * 500)


@pytest.mark.parametrize(
    "words,named",
    [
        (["train", "tiny", "train.lr=-1", "--out", "x"], "train.lr=-1"),
        (["train", "tiny", "train.rate=1", "--out", "x"], "train.rate"),
        (["train", "tiyn", "--out", "x"], "tiyn"),
        (["train", "tiny", "--out", "x", "--resume", "maybe"], "maybe"),
        (["train", "tiny", "data.sources=nowhere.txt", "--out", "x"], "nowhere.txt"),
        (["train", "tiny", "data.corpus=nowhere", "--out", "x"], "nowhere"),
        (["train", "tiny", "data.tokenizer=nowhere", "--out", "x"], "nowhere"),
        (["train", "tiny", "train.device=cuda", "data.documents=20", "--out", "x"], "sees no GPU"),
        (["sft", "sft", "--model", "nowhere", "--out", "x"], "nowhere"),
        (["generate", "--model", "nowhere", "--prompt", "x"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(words, named, capsys, tmp_path, monkeypatch):
    if named == "sees no GPU" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.chdir(tmp_path)
    assert named in refused(capsys, *words)
    assert not (tmp_path / "x" / "checkpoints").exists()


@pytest.mark.parametrize(
    "name,content,named",
    [("empty.txt", b"", "empty.txt"), ("binary.txt", b"text\x00\xff", "binary.txt"),
     ("latin.txt", "Grüße".encode("latin-1") * 9, "latin.txt"),
     ("rows.jsonl", b'{"text": "a"}\nno\n', "rows.jsonl:2")],
)  # fmt: skip
def test_what_is_not_text_is_named(name, content, named, capsys, tmp_path):
    (tmp_path / name).write_bytes(content)
    words = [f"data.sources={tmp_path / name}", "data.workers=1", "--out", str(tmp_path / "run")]
    assert named in refused(capsys, "train", "tiny", *words)


@pytest.mark.parametrize(
    "bad",
    [["--temperature", "-1"], ["--top-p", "0"], ["--max-tokens", "0"], ["--seed", "-1"], ["--top-k", "-1"],
     ["--min-p", "2"], ["--presence-penalty", "101"], ["--frequency-penalty", "nan"], ["--n", "0"],
     ["--repetition-penalty", "0"], ["--n", "65"], ["--logprobs", "21"], ["--draft-tokens", "9"],
     ["--speculate", "maybe"], ["--json-schema", "{no JSON"], ["--json-schema", "nowhere.json"],
     ["--json-schema", "."], ["--regex", "(", "--stop", ""]],
)  # fmt: skip
def test_wrong_draws_are_refused(run, bad, capsys):
    assert bad[1] in refused(capsys, "generate", "--model", str(run), "--prompt", "x", *bad)
    if bad[0] in ("--temperature", "--top-p", "--max-tokens", "--seed", "--speculate"):
        assert bad[1] in refused(capsys, "chat", "--model", str(run), "--message", "x", *bad)


def test_forms_that_cannot_be_kept_are_refused(run, capsys, tmp_path):
    pytest.importorskip("llguidance")
    (tmp_path / "latin.json").write_bytes('{"const": "Grüße"}'.encode("latin-1"))
    (tmp_path / "deep.json").write_text('{"not":' * 5000 + "{}" + "}" * 5000)
    command = ["generate", "--model", str(run), "--prompt", "x"]
    assert "not UTF-8" in refused(capsys, *command, "--json-schema", str(tmp_path / "latin.json"))
    assert "nests more than" in refused(capsys, *command, "--json-schema", str(tmp_path / "deep.json"))
    assert "regex cannot be used" in refused(capsys, *command, "--regex", "(")
    assert "both" in refused(capsys, *command, "--regex", "a", "--json-schema", "{}")


def test_what_only_json_can_show_asks_for_it(run, capsys):
    said = refused(capsys, "generate", "--model", str(run), "--prompt", "x", "--logprobs", "3")
    assert said.endswith("Fix: add --json\n")


def test_a_model_without_mtp_cannot_be_asked_to_draft(small, tmp_path, capsys):
    folder = tmp_path / "bare"
    made = ["train", "tiny", *small, "train.steps=1", "model.mtp.depth=0", "--out", str(folder), "--quiet"]
    assert main(made) == 0
    capsys.readouterr()
    command = ["--model", str(folder), "--speculate", "on"]
    assert "no MTP module" in refused(capsys, "generate", *command, "--prompt", "x")
    assert "no MTP module" in refused(capsys, "chat", *command, "--message", "x")
    assert main(["generate", "--model", str(folder), "--prompt", "x", "--speculate", "off"]) == 0


def test_chat_writes_one_answer_at_a_time(run, capsys):
    assert main(["chat", "--model", str(run), "--n", "3"]) == 2
    assert "--n" in capsys.readouterr().err


def test_more_tokens_than_positions_are_refused(run, capsys):
    said = refused(capsys, "generate", "--model", str(run), "--prompt", "Mia", "--max-tokens", "1000")
    assert "do not fit the 256 positions" in said and "set max_tokens to 254 or less" in said


def test_a_corrupt_checkpoint_is_named(run, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(latest(run), broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "model.safetensors" in refused(capsys, "generate", "--model", str(broken), "--prompt", "x")


def test_a_tokenizer_of_another_model_is_refused(run, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(latest(run), other)
    words = " ".join(f"word{i} thing{i * 7}" for i in range(4000))
    Tokenizer.train([words], 3000).save(other)
    assert "tokenizer.json" in refused(capsys, "generate", "--model", str(other), "--prompt", "x")
    (other / "manifest.json").unlink()  # as that message says, if the change was meant
    said = refused(capsys, "generate", "--model", str(other), "--prompt", "x")
    assert "the model has rows for 1024" in said


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(run, small, tmp_path, capsys, monkeypatch):
    """It fills up while a checkpoint is written: exit status 1, and the run can be resumed."""
    import errno

    from fathom.checkpoint import save

    folder = tmp_path / "run"
    shutil.copytree(run, folder)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(save, "write_tensors", full)
    more = [*small, "train.steps=4"]
    assert main(["train", "tiny", *more, "--out", str(folder), "--resume", "auto", "--quiet"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("fathom: ") and "Fix: " in said and "Traceback" not in said
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["step-000003"]
    monkeypatch.undo()
    assert main(["train", "tiny", *more, "--out", str(folder), "--resume", "auto", "--quiet"]) == 0
    assert latest(folder).name == "step-000004"
