"""How likely the model finds a given text, token by token.

Axes:  R rows   V vocabulary   K likeliest tokens
"""

from __future__ import annotations

import torch

from fathom.config.errors import need
from fathom.engine.apart import Apart
from fathom.engine.forward import logits
from fathom.engine.request import MOST_LOGPROBS, Logprob, RequestError

ROWS = 64  # logits in float64 are held for so many positions at a time
MOST_ENTRIES = 400_000  # log probabilities of one answer


def need_few_entries(tokens: int, top: int) -> None:
    """RequestError unless `top` likeliest may be told of each of so many tokens."""
    whole = isinstance(top, int) and not isinstance(top, bool) and 0 <= top <= MOST_LOGPROBS
    fix = f"set it from 0 to {MOST_LOGPROBS}"
    need(whole, "the number of likeliest tokens is out of range", fix=fix, error=RequestError)
    most = MOST_ENTRIES // (top + 1)
    what = f"{tokens} tokens with {top} likeliest each are too many"
    need(tokens <= most, what, fix=f"give {most} tokens or less", error=RequestError)


@torch.inference_mode()
def next_scores(text: Apart, top: int, known: int) -> list[Logprob]:
    """Of the tokens behind each position of the next chunk; behind the last of all there is none.

    known   tokens of the tokenizer: higher rows of the vocabulary are padding
    """
    start, h_RD = text.at, text.advance()
    scores: list[Logprob] = []
    for at in range(0, len(h_RD), ROWS):
        logit_RV = logits(text.weights, h_RD[at : at + ROWS])[:, :known].double()
        logprob_RV = logit_RV - logit_RV.logsumexp(-1, keepdim=True)
        best_RK, best_id_RK = logprob_RV.topk(min(top, known), -1)
        rows = zip(best_id_RK.tolist(), best_RK.tolist(), strict=True)
        behind = text.tokens[start + at + 1 : start + at + 1 + len(logprob_RV)]
        for r, (token, (ids, logs)) in enumerate(zip(behind, rows, strict=False)):
            scores.append(Logprob(token, float(logprob_RV[r, token]), tuple(zip(ids, logs, strict=True))))
    return scores
