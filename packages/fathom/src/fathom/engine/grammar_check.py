"""Compiles one grammar and dies: what it costs is paid here, in a process that can be killed.

A program that `fathom.engine.grammar` runs by its path: it imports nothing of fathom, so it starts at once.
It reads {"grammar", "limits", "bytes"} from stdin and writes {"error": text, "" if the grammar is good}.
"""

from __future__ import annotations

import json
import resource
import sys


class Bytes:
    """The smallest tokenizer: an end of text, and the 256 bytes. A compiled grammar hardly depends on it."""

    eos_token_id, bos_token_id = 0, None
    tokens = (b"<eos>", *(bytes([b]) for b in range(256)))
    special_token_ids = (0,)

    def __call__(self, text: str) -> list[int]:
        """Ids of `text`."""
        return [1 + byte for byte in text.encode()]


def main() -> None:
    """Compile what stdin names, and compute the first mask."""
    asked = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_AS, (asked["bytes"], asked["bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

    tokenizer = LLTokenizer(TokenizerWrapper(Bytes()), n_vocab=len(Bytes.tokens), eos_token=0)
    matcher = LLMatcher(tokenizer, asked["grammar"], log_level=0, limits=LLParserLimits(**asked["limits"]))
    if not matcher.is_error():
        matcher.compute_bitmask()  # finds what no text can satisfy
    json.dump({"error": matcher.get_error()}, sys.stdout)


if __name__ == "__main__":
    main()
