"""What the model makes of the beginning of held-out texts, so that people see it learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, zip_longest
from pathlib import Path

import torch

from fathom.data.corpus import CorpusMeta
from fathom.data.shards import Series
from fathom.data.tokenizer import Tokenizer
from fathom.model.generate import generate
from fathom.model.transformer import Transformer
from fathom.train.log import Sample

PROMPT, NEW = 24, 48  # tokens given, BOS among them, and tokens that follow at most


def held_out_samples(
    corpus: Path, tokenizer: Tokenizer, number: int, positions: int
) -> Callable[[Transformer], list[Sample]]:
    """A function that lets a model go on with `number` held-out documents, the first of each source first.

    Greedy, so the same weights give the same texts and no random number is drawn. Ends at EOS, after NEW
    tokens, or when the model's `positions` are full.
    """
    prompts = list(islice(_prompts(corpus, min(PROMPT, max(positions // 2, 1)), tokenizer.eos), number))

    def sample(model: Transformer) -> list[Sample]:
        return [_continue(model, tokenizer, ids, min(NEW, positions - len(ids))) for ids in prompts]

    return sample


def _prompts(corpus: Path, length: int, eos: int) -> Iterator[list[int]]:
    """The first tokens of the first document of each source, then of the second ones; each text once."""
    sources = CorpusMeta.load(corpus).series(corpus, "held_out")
    seen = set()
    for row in zip_longest(*(_beginnings(series, length) for series in sources)):
        for ids in row:
            text = [i for i in ids or () if i != eos]
            if text and tuple(text) not in seen:
                seen.add(tuple(text))
                yield text


def _beginnings(series: Series, length: int) -> Iterator[list[int]]:
    """The first tokens of each document of one source."""
    for d, n in enumerate(series.length_D):
        yield series.piece(d, 0, min(length, int(n))).tolist()


def _continue(model: Transformer, tokenizer: Tokenizer, ids: list[int], most: int) -> Sample:
    prompt_BT = torch.tensor([ids], device=model.embed.weight.device)
    new: list[int] = []
    for token_B in generate(model, prompt_BT, max_tokens=most, tokens=tokenizer.size):
        if token_B.item() == tokenizer.eos:
            break
        new.append(int(token_B.item()))
    return Sample(tokenizer.decode(ids), tokenizer.decode(new))
