"""The commands of a conversation, said to a voice that repeats what it hears."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer

from fathom.cli import chat_commands
from fathom.cli.chat import converse
from fathom.cli.chat_commands import COMMANDS, Answer, Conversation, Stopped, Turn, help_text
from fathom.cli.main import main
from fathom.config.errors import DataError, FathomError

BUSY = FathomError("busy. Fix: wait")


class Echo:
    """Answers with the last message and a number; what is in `next` comes first."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, list[Turn]]] = []
        self.next: list[Answer | Exception] = []
        self.temperature = 0.7

    def answer(self, system: str, turns: list[Turn]) -> Answer:
        self.heard.append((system, list(turns)))
        last = Answer(text=f"{turns[-1]['content']} {len(self.heard)}")
        answer = self.next.pop(0) if self.next else last
        if isinstance(answer, Exception):
            raise answer
        print(answer.text, end="")
        return answer

    def set_temperature(self, value: float) -> None:
        self.temperature = value

    def settings(self) -> dict[str, Any]:
        return {"temperature": self.temperature}

    def stats(self) -> str:
        return f"{len(self.heard)} answered" if self.heard else ""


@pytest.fixture
def talk() -> Conversation:
    return Conversation(Echo())


def texts(talk: Conversation) -> list[str]:
    return [turn["content"] for turn in talk.turns]


def test_help_is_the_table_and_every_line_of_it_is_a_command(talk, capsys):
    assert talk.say("/help")
    shown = capsys.readouterr().out
    assert shown == help_text() + "\n" and len(shown.splitlines()) == len(COMMANDS)
    assert all(len(line) <= 80 for line in shown.splitlines())
    for command in COMMANDS:
        assert command.help in shown and talk.say(command.name) == (command.run is not None)
    assert "is no command" not in capsys.readouterr().err and not talk.say("/quit")


@pytest.mark.parametrize(
    "line,near",
    [("/sytsem Be kind.", "/system"), ("/regenerate", "/regen"), ("/sav x", "/save"), ("/Temp 1", "/temp")],
)
def test_an_unknown_command_names_the_nearest(line, near, talk, capsys):
    assert talk.say(line) and talk.turns == [] and talk.system == ""
    said = capsys.readouterr()
    fix = f"type {near}, the nearest; /help lists all"
    assert said == ("", f"fathom: {line.split()[0]} is no command. Fix: {fix}\n")


@pytest.mark.parametrize("line", ["/", "/xyzzy", "/\x1b[2J"])
def test_one_that_is_near_to_none_shows_the_list(line, talk, capsys):
    talk.say(line)
    said = capsys.readouterr()
    assert "is no command. Fix: type one of the list\n" in said.err and said.out == help_text() + "\n"
    assert "\x1b" not in said.err


def test_a_system_message_holds_from_the_next_answer_on(talk, capsys):
    for line in ("/system", "Hi", "  /system  Be kind. ", "/system", "Go on", '/system ""', "/system"):
        talk.say(line)
    shown = capsys.readouterr().out
    assert shown.count("system   none\n") == 3 and shown.count("system   Be kind.\n") == 2
    assert shown.count("from the next answer on; /reset forgets") == 2
    assert [system for system, _ in talk.voice.heard] == ["", "Be kind."]
    assert len(talk.voice.heard[1][1]) == 3, "what was said before stays"


def test_the_temperature_is_set_and_shown(talk, capsys):
    for line in ("/temp", "/temp 0", "/temp hot", "/temp nan", "/temp -1", "/temp inf", "/temp 0.5 0.6"):
        talk.say(line)
    said = capsys.readouterr()
    assert said.out == "temperature 0.7\ntemperature 0.0\n" and talk.voice.temperature == 0
    assert said.err.count("is no temperature. Fix: give a number such as 0.7\n") == 5


def test_regen_answers_again_and_keeps_the_former_answer_where_there_is_no_other(talk, capsys):
    talk.say("/regen")
    assert "there is no answer yet. Fix: say something first" in capsys.readouterr().err
    talk.say("Hi")
    talk.say("/regen")
    assert texts(talk) == ["Hi", "Hi 2"]
    talk.voice.next = [BUSY, Answer(text="", exit_code=130)]
    for _ in range(2):
        talk.say("/regen")
        assert texts(talk) == ["Hi", "Hi 2"]
    talk.say("/regen")
    assert texts(talk) == ["Hi", "Hi 5"]


@pytest.mark.parametrize("failure", [BUSY, Answer(text="", exit_code=130), Answer(text="", error=BUSY)])
def test_a_message_without_an_answer_is_taken_back_and_regen_says_it_again(failure, talk, capsys):
    talk.say("Hi")
    talk.voice.next = [failure]
    talk.say("More")
    assert texts(talk) == ["Hi", "Hi 1"] and capsys.readouterr().err.count("Fix: ") == 1
    talk.say("/regen")
    assert texts(talk) == ["Hi", "Hi 1", "More", "More 3"]


def test_reset_forgets_what_was_taken_back_too(talk, capsys):
    talk.voice.next = [BUSY]
    for line in ("Hi", "/reset", "/regen"):
        talk.say(line)
    assert texts(talk) == [] and "no answer yet" in capsys.readouterr().err


def test_half_an_answer_stays_with_the_reason(talk, capsys):
    talk.voice.next = [Answer(text="Onc", error=BUSY), Answer(text="Twi", exit_code=130)]
    talk.say("Hi")
    talk.say("Go on")
    assert texts(talk) == ["Hi", "Onc", "Go on", "Twi"]
    assert capsys.readouterr().err == "fathom: busy. Fix: wait\n"


@pytest.mark.parametrize("text", ["", "half"])
def test_sigterm_leaves(text, talk):
    talk.voice.next = [Answer(text=text, exit_code=75)]
    with pytest.raises(typer.Exit) as left:
        talk.say("Hi")
    assert left.value.exit_code == 75


def test_one_message_that_is_stopped_has_the_status_of_the_signal(talk):
    talk.voice.next = [Answer(text="", exit_code=130)]
    with pytest.raises(Stopped) as stopped:
        talk.ask("Hi")
    assert stopped.value.exit_code == 130


def test_turns_that_no_longer_fit_are_not_sent_but_saved(talk, tmp_path):
    talk.say("one")
    talk.voice.next = [Answer(text="b", dropped=2)]
    talk.say("two")
    talk.say("three")
    assert [turn["content"] for turn in talk.voice.heard[2][1]] == ["two", "b", "three"]
    talk.say(f"/save {tmp_path / 'all.json'}")
    assert len(json.loads((tmp_path / "all.json").read_text())["messages"]) == 6


def test_save_writes_messages_and_settings_and_replaces_only_when_told(talk, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    talk.say("/save early.json")
    talk.say("/system Be kind.")
    talk.say("Grüße \ud83d\ude00 \ud83d")
    talk.say("/save my talk.json")
    kept = json.loads(Path("my talk.json").read_text(encoding="utf-8"))
    assert set(kept) == {"fathom", "settings", "messages"} and kept["settings"] == {"temperature": 0.7}
    assert [turn["role"] for turn in kept["messages"]] == ["system", "user", "assistant"]
    assert kept["messages"][1]["content"] == "Grüße 😀 \ufffd"
    talk.say("Go on")
    before = Path("my talk.json").read_bytes()
    talk.say("/save my talk.json")
    assert Path("my talk.json").read_bytes() == before
    talk.say("/save! my talk.json")
    assert len(json.loads(Path("my talk.json").read_text(encoding="utf-8"))["messages"]) == 5
    said = capsys.readouterr()
    assert said.out.count("in my talk.json\n") == 2 and "nothing was said yet" in said.err
    assert "my talk.json exists already. Fix: choose another name, or type /save! to replace it\n" in said.err
    assert os.listdir() == ["my talk.json"]


@pytest.mark.parametrize(
    "name", ["", "nowhere/talk.json", "a\x00b", "x" * 300, "file/talk.json", "folder", "link.json"]
)
def test_a_place_that_cannot_be_written_is_one_line(name, talk, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder").mkdir()
    Path("link.json").symlink_to("gone")
    talk.say("Hi")
    for command in ("/save", "/save!") if name != "link.json" else ("/save",):
        talk.say(f"{command} {name}")
        assert capsys.readouterr().err.count("Fix: ") == 1
    assert sorted(os.listdir()) == ["file", "folder", "link.json"]


def test_a_full_disk_leaves_no_half_of_it(talk, tmp_path, capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "talk.json").write_text("old")
    monkeypatch.setattr("fathom.config.folder.os.replace", full)
    talk.say("Hi")
    talk.say(f"/save! {tmp_path / 'talk.json'}")
    assert "the disk is full" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["talk.json"] and (tmp_path / "talk.json").read_text() == "old"


def test_lines_that_are_not_utf8_are_one_line(talk, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Hi\n\xff\n"), encoding="utf-8"))
    with pytest.raises(DataError, match="not UTF-8. Fix: "):
        converse(talk)


def test_ctrl_c_at_the_prompt_leaves(talk, monkeypatch):
    def interrupt(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupt)
    converse(talk)


def test_a_command_is_a_row_of_the_table(talk, capsys, monkeypatch):
    row = chat_commands.Command("/shout", "TEXT", "say it loud", lambda _, text: print(text.upper()))
    monkeypatch.setattr(chat_commands, "COMMANDS", (*COMMANDS, row))
    talk.say("/shout mia and leo")
    assert capsys.readouterr().out == "MIA AND LEO\n"
    talk.say("/help")
    assert "/shout TEXT      say it loud\n" in capsys.readouterr().out


def test_a_model_here_takes_the_same_commands(run, tmp_path, capsys, monkeypatch):
    file = tmp_path / "talk.json"
    lines = ["Hello", "/system Be kind.", "/temp 0.5", "/temp 1e9", "/regen", f"/save {file}"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    command = ["chat", "--model", str(run), "--max-tokens", "5", "--seed", "3", "--temperature", "1.5"]
    assert main(command) == 0
    assert capsys.readouterr().err.count("Fix: ") == 1
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert [turn["role"] for turn in kept["messages"]] == ["system", "user", "assistant"]
    assert kept["settings"] == {
        "model": str(run), "temperature": 0.5, "top_p": 0.95, "max_tokens": 5, "seed": 3, "speculate": "auto",
    }  # fmt: skip
