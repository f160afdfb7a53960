"""Ask a model verifiable questions, greedily, and count the right answers.

Axes:  B prompts of one length   T positions
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from fathom.data.chat import encode_chat
from fathom.data.smallworld import Prompt, grade
from fathom.data.tokenizer import Tokenizer
from fathom.model.generate import generate
from fathom.model.transformer import Transformer

MAX_TOKENS = 40  # the longest right answer shows its working in about 25
BATCH = 32


class Answered(NamedTuple):
    """One question, what the model said, and whether that was right."""

    prompt: Prompt
    reply: str
    right: bool


def ask(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int = MAX_TOKENS,
    told: Callable[[int], None] | None = None,
) -> list[Answered]:
    """Answer every prompt with the likeliest tokens, prompts of one length together; in the given order.

    told   is called with the number answered so far
    """
    by_length: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for i, prompt in enumerate(prompts):
        ids, _ = encode_chat(tokenizer, prompt.messages, generation_prompt=True)
        by_length[len(ids)].append((i, ids))
    replies: dict[int, str] = {}
    for same in by_length.values():
        for start in range(0, len(same), BATCH):
            part = same[start : start + BATCH]
            texts = _continue(model, tokenizer, [ids for _, ids in part], max_tokens)
            replies |= {i: text for (i, _), text in zip(part, texts, strict=True)}
            if told is not None:
                told(len(replies))
    return [Answered(p, replies[i], grade(p, replies[i])) for i, p in enumerate(prompts)]


def _continue(model: Transformer, tokenizer: Tokenizer, rows: list[list[int]], max_tokens: int) -> list[str]:
    """What follows each row, up to its end token."""
    prompt_BT = torch.tensor(rows, device=model.embed.weight.device)
    columns: list[torch.Tensor] = []
    ended_B = torch.zeros(len(rows), dtype=torch.bool, device=prompt_BT.device)
    for token_B in generate(model, prompt_BT, max_tokens=max_tokens, tokens=tokenizer.size):
        columns.append(token_B)
        ended_B |= token_B == tokenizer.eos
        if ended_B.all():
            break
    drawn = torch.stack(columns, dim=1).tolist()
    end = tokenizer.eos
    return [tokenizer.decode(ids[: ids.index(end)] if end in ids else ids) for ids in drawn]


def share_right(answers: Sequence[Answered]) -> float:
    """The share of right answers."""
    return sum(a.right for a in answers) / len(answers)
