"""The log probabilities of a given text are those of the model, and those of answers that write it."""

from __future__ import annotations

import asyncio

import pytest
import torch

from fathom.engine import Request, RequestError, SamplingParams


@pytest.mark.parametrize("length, chunk", [(1, 512), (90, 512), (90, 16), (512, 100)])
def test_scores_are_those_of_the_model(trained, length, chunk):
    engine = trained.engine(precision="fp32", prefill_tokens=chunk)
    tokens = [(5 * k * k + k) % 390 for k in range(length)]
    with torch.inference_mode():
        logit_TV = trained.model.logits(torch.tensor([tokens]))[0, :, : trained.tokenizer.size].double()
    logprob_TV = logit_TV.log_softmax(-1)
    scores = asyncio.run(engine.score(tokens, 3))
    engine.close()
    assert [one.token for one in scores] == tokens[1:]
    for t, one in enumerate(scores):
        assert one.logprob == pytest.approx(float(logprob_TV[t, one.token]), abs=1e-4)
        best = logprob_TV[t].topk(3)
        assert [token for token, _ in one.top] == best.indices.tolist()
        assert [log for _, log in one.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_scores_are_those_that_the_writer_told(trained):
    engine = trained.engine(precision="fp32")
    sampling = SamplingParams(max_tokens=20, seed=1, logprobs=2, ignore_eos=True)
    prompt = [trained.tokenizer.bos, *trained.tokenizer.encode("Mia had")]
    written = engine.generate([Request(tokens=prompt, sampling=sampling)])[0].completions[0]
    scores = asyncio.run(engine.score([*prompt, *written.tokens], 2))[len(prompt) - 1 :]
    engine.close()
    assert [one.token for one in scores] == list(written.tokens)
    assert [s.logprob for s in scores] == pytest.approx([w.logprob for w in written.logprobs], abs=1e-4)


@pytest.mark.parametrize(
    "tokens, top", [([], 0), ([1], 21), ([1], -1), ([1], True), ([400], 0), ([1] * 513, 0)]
)
def test_what_cannot_be_scored_is_refused(trained, tokens, top):
    engine = trained.engine()
    with pytest.raises(RequestError, match="Fix: "):
        asyncio.run(engine.score(tokens, top))
    engine.close()
