"""Byte-level BPE with DeepSeek-V3's pre-tokenizer and control tokens (report section 4.1).

A trained vocabulary is 3 control tokens (ids 0, 1, 2), 256 bytes, the merges, and the other control tokens at
the end. Files of other layouts, the released one among them, are read by the control tokens' strings, not by
their ids.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from fathom.config.errors import DataError, need
from fathom.data import chat
from fathom.data.specials import BOS, EOS, FIRST, LAST, PAD, SPECIALS

DIGITS = r"\p{N}{1,3}"  # runs of digits in groups of three, from the left
CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
WORDS = "|".join(
    (
        r"[!-/:-@\[-`{-~][A-Za-z]+",  # one ASCII punctuation character and the letters after it
        r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
        r" ?[\p{P}\p{S}]+[\r\n]*",  # punctuation merges with line breaks: new in V3
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
SMALLEST = len(FIRST) + 256 + len(LAST)  # a vocabulary without merges


class Tokenizer:
    """Text to ids and back; `decode(encode(text)) == text` for every text of valid Unicode."""

    def __init__(self, definition: str, origin: str = "tokenizer") -> None:
        """From the text of a tokenizer.json; `origin` is the name that errors give it."""
        self._definition = definition
        try:
            table = json.loads(definition)
            self._plain = tokenizers.Tokenizer.from_str(json.dumps(_without_specials(table)))
            self._bytes = _bytes_of(table)
        except DataError:
            raise
        except Exception as error:  # tokenizers raises bare Exception
            reason = " ".join(str(error).split()) or type(error).__name__
            reason = f"it has no {reason}" if isinstance(error, KeyError) else reason
            raise DataError(f"{origin} is not a tokenizer ({reason}). Fix: {_FIX_FILE}") from None
        self._origin = origin
        added = {token["content"]: token["id"] for token in table.get("added_tokens", [])}
        self._special = {name: added[text] for name, text in SPECIALS.items() if text in added}
        for name in ("bos", "eos"):
            self.special(name)
        self.bos, self.eos = self._special["bos"], self._special["eos"]
        self.pad = self._special.get("pad", self.eos)
        self.size = len(self._bytes)
        self._control = frozenset(self._special.values())

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Train on `texts`; `vocab_size` counts everything, control tokens too.

        Where the texts hold fewer merges than that asks for, the vocabulary is smaller and `size` says so.
        """
        what = f"a vocabulary of {vocab_size} tokens is too small"
        need(vocab_size >= SMALLEST, what, fix=f"ask for {SMALLEST} or more")
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = _pre_tokenizer()
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - len(LAST),
            special_tokens=list(FIRST.values()),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator((valid_unicode(text) for text in texts), trainer)
        tokenizer.add_special_tokens([_added(text) for text in LAST.values()])
        # In the file itself: not every reader goes by add_bos_token. A rendered chat holds its BOS already.
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
        )
        return cls(tokenizer.to_str(pretty=True), "the trained tokenizer")

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a tokenizer.json, or the one in a folder; DataError if there is none or it is unusable."""
        file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        try:
            return cls(file.read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise DataError(f"cannot read the tokenizer {file} ({reason}). Fix: {_FIX_FILE}") from None

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and the files that transformers reads beside it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        pad = PAD if "pad" in self._special else EOS
        named = {"bos_token": BOS, "eos_token": EOS, "pad_token": pad}
        config = {
            **named,
            "unk_token": None,
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": chat.template(),
        }
        _write(folder / "tokenizer.json", self._definition)
        _write(folder / "tokenizer_config.json", json.dumps(config, ensure_ascii=False, indent=2))
        _write(folder / "special_tokens_map.json", json.dumps(named, ensure_ascii=False, indent=2))
        _write(folder / "chat_template.jinja", chat.template())

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, no BOS. Guarantee: never the id of a control token, whatever the text spells.

        A lone surrogate, which is no valid Unicode, is read as U+FFFD.
        """
        return list(self._plain.encode(valid_unicode(text), add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int], *, specials: bool = False) -> str:
        """Text of `ids`; without control tokens unless `specials`. Bytes that are no UTF-8 become U+FFFD."""
        keep = (i for i in ids if 0 <= i < self.size and (specials or i not in self._control))
        return b"".join(self._bytes[i] for i in keep).decode("utf-8", errors="replace")

    def special(self, name: str) -> int:
        """Id of a control token by its short name, such as "user" (see `fathom.data.specials`)."""
        assert name in SPECIALS, f"{name} is not one of {', '.join(SPECIALS)}"
        what = f"{self._origin} has no token {SPECIALS[name]}"
        need(name in self._special, what, fix=_FIX_FILE, error=DataError)
        return self._special[name]

    def byte_lengths(self) -> np.ndarray:
        """Bytes of UTF-8 that each id stands for, int64 [size]; 0 for control tokens (for bits per byte)."""
        lengths = [0 if i in self._control else len(piece) for i, piece in enumerate(self._bytes)]
        return np.array(lengths, dtype=np.int64)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one id; none for a control token or an id beyond the vocabulary."""
        return self._bytes[token] if 0 <= token < self.size and token not in self._control else b""


class TextStream:
    """Decode ids one at a time: a character that spans tokens comes out once, whole."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that is certain after this id, perhaps "". Joined, the pieces equal `decode` of all."""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    def end(self) -> str:
        """What is left: U+FFFD where the ids stop inside a character."""
        return self._decoder.decode(b"", final=True)


def valid_unicode(text: str) -> str:
    """`text` with surrogate pairs joined and lone ones read as U+FFFD; they come from broken JSON escapes."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_FIX_FILE = (
    "name a byte-level tokenizer.json of DeepSeek-V3's family, or leave data.tokenizer empty to train one"
)


def _pre_tokenizer() -> Any:
    splits = [pre_tokenizers.Split(tokenizers.Regex(r), "isolated") for r in (DIGITS, CJK, WORDS)]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*splits, level])


def _added(text: str) -> Any:
    return tokenizers.AddedToken(text, special=True, normalized=False)


def _without_specials(table: dict[str, Any]) -> dict[str, Any]:
    """The definition in which no control token exists, so that encoding text cannot yield one."""
    specials = {token["content"] for token in table.get("added_tokens", [])}
    vocab = {piece: i for piece, i in table["model"]["vocab"].items() if piece not in specials}
    without = dict.fromkeys(("post_processor", "padding", "truncation"))
    return table | without | {"model": table["model"] | {"vocab": vocab}, "added_tokens": []}


def _bytes_of(table: dict[str, Any]) -> list[bytes]:
    """The bytes of each id; an id that no token has stands for none."""
    byte_of = _byte_of_character()
    added = {token["id"]: token["content"].encode() for token in table.get("added_tokens", [])}
    vocab = table["model"]["vocab"]
    pieces = [b""] * (1 + max([*vocab.values(), *added]))
    for piece, i in vocab.items():
        if i not in added:
            if not byte_of.keys() >= set(piece):
                raise ValueError("its tokens are not written as bytes")
            pieces[i] = bytes(byte_of[character] for character in piece)
    for i, piece in added.items():
        pieces[i] = piece
    return pieces


def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet: a printable byte stands for itself, the n-th other one for the character 256 + n."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
