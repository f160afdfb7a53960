"""Fill in the middle, at document level and before packing (report section 4.1).

A share of documents is shown as <fim_begin> prefix <fim_hole> suffix <fim_end> middle, in its BOS and EOS.
"""

from __future__ import annotations

import random

from fathom.data.tokenizer import Tokenizer


def split_middle(text: str, rng: random.Random) -> tuple[str, str, str]:
    """Cut `text`, one character or more, at two different places: prefix, middle (never empty), suffix."""
    start, stop = sorted(rng.sample(range(len(text) + 1), 2))
    return text[:start], text[start:stop], text[stop:]


def encode_document(
    tokenizer: Tokenizer, text: str, *, rate: float = 0.0, rng: random.Random | None = None
) -> list[int]:
    """Ids of one document, BOS and EOS included; with probability `rate` in the order prefix, suffix, middle.

    The text is cut between characters, before it becomes tokens, so that the model learns to continue a
    prefix that stops inside a word. `rng` belongs to the document: the result does not depend on any other.
    """
    if rng is not None and text and rng.random() < rate:
        prefix, middle, suffix = (tokenizer.encode(part) for part in split_middle(text, rng))
        begin, hole, end = (tokenizer.special(name) for name in ("fim_begin", "fim_hole", "fim_end"))
        return [tokenizer.bos, begin, *prefix, hole, *suffix, end, *middle, tokenizer.eos]
    return [tokenizer.bos, *tokenizer.encode(text), tokenizer.eos]
