"""What a run reads: sources and their weights, the tokenizer, packing (report section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from fathom.config.errors import need, plain, quoted
from fathom.config.setting import check, setting, share


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """A corpus: where its text comes from and how it becomes rows of tokens."""

    corpus: str = setting("", "folder made by `fathom data build`; empty = build one from `sources`")
    sources: tuple[str, ...] = setting(
        ("smallworld",), "smallworld, pydocs, pycode, files, globs, folders or hf:NAME, each once"
    )
    weights: tuple[float, ...] = setting((), "share of tokens from each source; empty = by size", above=0.0)
    tokenizer: str = setting("", "tokenizer.json, or a folder with one; empty = train one on the corpus")
    vocab_size: int = setting(1024, "tokens of a tokenizer that is trained here", low=300)
    documents: int = setting(20000, "documents a generator writes", low=1)
    held_out: float = setting(0.01, "share of documents kept from training", low=0.0, high=0.5)
    packing: str = setting("best_fit", "how documents fill rows", choices=("best_fit", "stream"))
    fim_rate: float = share(0.0, "share of documents rewritten as prefix-suffix-middle")
    text_field: str = setting("text", "column or key that holds the text in .jsonl and .parquet")
    workers: int = setting(0, "processes that tokenise; 0 = one per core", low=0)
    seed: int = setting(0, "seed of generators, shuffling, packing and FIM", low=0)

    def content(self) -> dict[str, Any]:
        """The settings that decide which tokens a corpus holds, as JSON has them."""
        apart = {"corpus", "packing", "workers"}  # weights decide what a tokenizer is trained on
        every: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in every.items()}

    def __post_init__(self) -> None:
        check(self, "data")
        named = bool(self.sources) and all(self.sources)
        need(
            named,
            f"data.sources={quoted(self.sources)} names no source",
            fix='set it to a list such as ["smallworld"]',
        )
        twice = sorted({s for s in self.sources if self.sources.count(s) > 1})
        need(
            not twice,
            f"data.sources names {plain(', '.join(twice))} twice",
            fix="name it once and raise its share in data.weights",
        )
        need(
            not self.weights or len(self.weights) == len(self.sources),
            f"data.weights has {len(self.weights)} values for {len(self.sources)} data.sources",
            fix="give one weight for each source, or set weights to []",
        )
        need(self.text_field != "", "data.text_field is empty", fix='set it to a name such as "text"')
