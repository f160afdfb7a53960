"""What comes back from the tokenizer is what went in, and nobody's text becomes a control token."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.config.errors import ConfigError, DataError
from fathom.data.specials import LAST, SPECIALS
from fathom.data.tokenizer import SMALLEST, TextStream, Tokenizer

STORY = (
    "Mia took the red kite to the park, and it flew over 1234567 trees.\n\nShe laughed; it was 日本語 day!\n"
)
modest = settings(max_examples=60, deadline=None)
hostile = st.lists(st.one_of(st.text(), st.sampled_from(list(SPECIALS.values())))).map("".join)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([STORY] * 4, 320)


@pytest.fixture(scope="module")
def released(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """The released file in small: other ids, placeholders, and control tokens that are not marked special."""
    tokenizer.save(folder := tmp_path_factory.mktemp("released"))
    table = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    first = 128_800 - 2
    texts = ["<｜place▁holder▁no▁798｜>", "<｜place▁holder▁no▁799｜>", *LAST.values()]
    table["added_tokens"] = table["added_tokens"][:3] + [
        table["added_tokens"][3] | {"id": first + n, "content": text, "special": False}
        for n, text in enumerate(texts)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(table), encoding="utf-8")
    return Tokenizer.load(folder)


@given(text=st.text())
@modest
def test_text_survives_the_round_trip(tokenizer: Tokenizer, text: str):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=hostile)
@modest
def test_no_text_yields_a_control_token(tokenizer: Tokenizer, released: Tokenizer, text: str):
    for one in (tokenizer, released):
        ids = one.encode(text)
        assert not {one.special(name) for name in SPECIALS} & set(ids)
        assert max(ids, default=0) < 128_000, "a placeholder came out"
        assert one.decode(ids) == text


@given(text=hostile)
@modest
def test_byte_lengths_add_up_to_the_bytes_of_the_text(tokenizer: Tokenizer, text: str):
    ids = [tokenizer.bos, *tokenizer.encode(text), tokenizer.eos]
    assert int(tokenizer.byte_lengths()[ids].sum()) == len(text.encode())


@given(data=st.data())
@modest
def test_a_stream_of_any_ids_equals_decode(tokenizer: Tokenizer, data: st.DataObject):
    ids = data.draw(st.lists(st.integers(0, tokenizer.size - 1)))
    stream = TextStream(tokenizer)
    assert "".join([stream.push(i) for i in ids] + [stream.end()]) == tokenizer.decode(ids)


def test_a_stream_waits_for_the_whole_character(tokenizer: Tokenizer):
    stream = TextStream(tokenizer)
    pieces = [stream.push(i) for i in tokenizer.encode("a🙂b")]
    assert "".join(pieces) == "a🙂b"
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert stream.end() == ""
    stream.push(tokenizer.encode("🙂")[0])
    assert stream.end() == "\N{REPLACEMENT CHARACTER}"


def test_ids_are_laid_out_as_in_the_released_tokenizer(tokenizer: Tokenizer):
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (0, 1, 2)
    assert tokenizer.size == 320 == len(tokenizer.byte_lengths())
    assert sorted(tokenizer.byte_lengths()[3:259]) == [1] * 256
    tail = [tokenizer.special(name) for name in LAST]
    assert tail == list(range(320 - len(LAST), 320))
    assert tokenizer.decode([0, *tail, 1]) == ""
    assert tokenizer.decode([0, *tail, 1], specials=True) == "".join(
        [SPECIALS["bos"], *LAST.values(), SPECIALS["eos"]]
    )


def test_specials_are_found_by_their_strings(released: Tokenizer):
    assert (released.special("fim_hole"), released.special("user"), released.special("eot")) == (
        128_800,
        128_803,
        128_805,
    )
    assert released.size == 128_815
    assert released.byte_lengths()[128_803] == 0


def test_a_lone_surrogate_is_read_as_the_replacement_character(tokenizer: Tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud83db")) == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("abc1234567", ["abc", "123", "456", "7"]),
        ("x 12", ["x", " ", "12"]),
        ("東京タワーです, ok", ["東京タワーです", ",", " ok"]),
        ("一 한", ["一", " 한"]),
        ("end.\n\nNew", ["end", ".\n\n", "New"]),
        ("f(x) !!\r\n y", ["f", "(x", ")", " !!\r\n", " y"]),
        ("a   b  ", ["a", "  ", " b", "  "]),
        ("don't", ["don", "'t"]),
    ],
)
def test_the_three_steps_of_the_pre_tokenizer(
    tokenizer: Tokenizer, tmp_path: Path, text: str, pieces: list[str]
):
    tokenizer.save(tmp_path)
    splitter = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).pre_tokenizer
    assert [text[a:b] for _, (a, b) in splitter.pre_tokenize_str(text)] == pieces


def test_a_small_corpus_gives_a_smaller_vocabulary_and_says_so():
    tokenizer = Tokenizer.train(["ab ab ab"], 1000)
    assert SMALLEST < tokenizer.size < SMALLEST + 5
    assert tokenizer.special("tool_sep") == tokenizer.size - 1
    assert Tokenizer.train([], 300).size == SMALLEST


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(ConfigError, match=rf"273 .*Fix: ask for {SMALLEST}"):
        Tokenizer.train([STORY], SMALLEST - 1)


def test_training_twice_gives_the_same_file(tokenizer: Tokenizer, tmp_path: Path):
    tokenizer.save(tmp_path / "a")
    Tokenizer.train([STORY] * 4, 320).save(tmp_path / "b")
    Tokenizer.load(tmp_path / "a" / "tokenizer.json").save(tmp_path / "c")
    files = {path.name for path in (tmp_path / "a").iterdir()}
    assert files == {
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    }
    for name in files:
        a, b, c = ((tmp_path / folder / name).read_bytes() for folder in "abc")
        assert a == b == c


def _without(key: str, table: dict[str, Any]) -> str:
    return json.dumps({k: v for k, v in table.items() if k != key})


@pytest.mark.parametrize(
    "damage", ["missing", "empty", "binary", "not json", "list", "no model", "cut", "no bos", "no bytes"]
)
def test_a_bad_file_is_one_line_with_the_fix(tokenizer: Tokenizer, tmp_path: Path, damage: str):
    tokenizer.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    text = file.read_text(encoding="utf-8")
    table = json.loads(text)
    if damage == "missing":
        file.unlink()
    elif damage == "binary":
        file.write_bytes(b"\xff\xfe\x00")
    else:
        bad = {"empty": "", "not json": "hello", "list": "[1]", "cut": text[: len(text) // 2]}
        bad |= {"no model": _without("model", table), "no bos": _without("added_tokens", table)}
        bad |= {"no bytes": text.replace('"Ā"', '"▁"')}
        file.write_text(bad[damage], encoding="utf-8")
    with pytest.raises(DataError) as caught:
        Tokenizer.load(tmp_path)
    message = str(caught.value)
    assert "tokenizer.json" in message and "Fix: " in message and "\n" not in message


@pytest.mark.parametrize("model_config", [None, {"model_type": "deepseek_v3"}])
def test_transformers_reads_the_folder_with_the_same_ids(
    tokenizer: Tokenizer, tmp_path: Path, model_config: dict[str, str] | None
):
    transformers = pytest.importorskip("transformers")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    tokenizer.save(tmp_path)
    if model_config:
        (tmp_path / "config.json").write_text(json.dumps(model_config), encoding="utf-8")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 1, 2)
    assert len(theirs) == tokenizer.size
    for text in (STORY, "  two  spaces\r\n", "x = {'a': 1}", "", "🙂 한국어"):
        ids = tokenizer.encode(text)
        assert theirs(text, add_special_tokens=False).input_ids == ids
        assert theirs(text).input_ids == [tokenizer.bos, *ids]
        assert theirs.decode(ids) == text
        assert theirs(SPECIALS["user"] + text).input_ids == [tokenizer.bos, tokenizer.special("user"), *ids]
