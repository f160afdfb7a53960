"""Drafts change how fast an answer comes, never what it is: token by token, or in distribution."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from fathom.data.smallworld import prompts
from fathom.engine import runner
from fathom.engine.answer import Answer
from fathom.engine.draws import Distribution
from fathom.engine.request import Request, SamplingParams
from fathom.engine.sample import Chooser
from fathom.engine.sequence import Sequence


def conversations(count: int, **sampling: object) -> list[Request]:
    params = SamplingParams(**{"max_tokens": 30} | sampling)
    return [Request(messages=p.messages, sampling=params) for p in prompts(21, count, held_out=True)]


def texts(engine, asked: list[Request]) -> list[tuple[int, ...]]:
    return [c.tokens for result in engine.generate(asked) for c in result.completions]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_greedy_answers_are_the_same_tokens(trained, depth):
    asked = conversations(24, temperature=0.0)
    engine = trained.engine(speculate="on", draft_tokens=depth, page_size=8)
    assert texts(engine, asked) == texts(trained.engine(speculate="off", page_size=8), asked)
    stats = engine.stats
    assert stats.accepted > 100 and stats.drafted > stats.accepted
    assert stats.tokens_per_pass > 1.3
    assert stats.tokens <= stats.trunk_passes + stats.accepted


@pytest.mark.parametrize("more", [{}, {"top_p": 0.8}, {"repetition_penalty": 1.3, "frequency_penalty": 0.2}])
def test_under_a_seed_sampled_answers_are_the_same_tokens(trained, more):
    asked = conversations(16, temperature=0.8, seed=9, **more)
    engine = trained.engine(speculate="on", draft_tokens=2)
    assert texts(engine, asked) == texts(trained.engine(speculate="off"), asked)
    assert engine.stats.accepted > 50


@pytest.mark.parametrize("over", [0, 1, 2])
@pytest.mark.parametrize("pages", [1, 3])
def test_nothing_is_drafted_before_the_prompt_is_computed(trained, over, pages):
    """A chunk may end one position before the prompt does, and the pass behind it verifies no draft."""
    engine = trained.engine(speculate="on", page_size=8, prefill_tokens=8, debug=True)
    plain = trained.engine(speculate="off", page_size=8)
    sampling = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True)
    prompts_of = [tuple((7 * k + 3 * t) % 200 for t in range(8 * pages + over)) for k in range(12)]
    asked = [Request(tokens=tokens, sampling=sampling) for tokens in prompts_of]
    assert texts(engine, asked) == texts(plain, asked)


def test_drafts_are_mostly_right_because_the_module_was_trained(trained):
    engine = trained.engine(speculate="on")
    engine.generate(conversations(24, temperature=0.0))
    assert engine.stats.acceptance > 0.35
    # the same module fed with nonsense: acceptance is due to what it sees
    nonsense = trained.engine(speculate="on")
    draft = nonsense.runner.weights.draft
    with torch.inference_mode():
        draft.hidden_norm.weight_D.zero_()
        draft.token_norm.weight_D.zero_()
    nonsense.generate(conversations(24, temperature=0.0))
    assert nonsense.stats.acceptance < 0.5 * engine.stats.acceptance


def test_without_a_seed_pairs_of_tokens_have_the_plain_distribution(trained):
    """Through the whole engine: the rejection rule, over the model's own two distributions."""
    draws, prompt = 1500, [trained.tokenizer.bos, *trained.tokenizer.encode("Mia had")]
    sampling = SamplingParams(temperature=1.0, top_k=4, max_tokens=3, ignore_eos=True, n=50)
    engine = trained.engine(speculate="on", draft_tokens=2, debug=False, page_size=8)
    seen: Counter[tuple[int, ...]] = Counter()
    for _ in range(draws // 50):
        for completion in engine.generate([Request(tokens=prompt, sampling=sampling)])[0].completions:
            seen[completion.tokens] += 1
    assert engine.stats.accepted > 200 and engine.stats.drafted - engine.stats.accepted > 200
    expected = _triples(trained, prompt, sampling)
    assert set(seen) <= set(expected)
    likely = [t for t, p in expected.items() if p * draws >= 8]
    rest = draws - sum(seen[t] for t in likely), draws * (1 - sum(expected[t] for t in likely))
    chi = sum((seen[t] - draws * expected[t]) ** 2 / (draws * expected[t]) for t in likely)
    chi += (rest[0] - rest[1]) ** 2 / rest[1]
    freedom = len(likely)
    # Wilson and Hilferty (1931): the cube root of chi^2/k is nearly normal; 4 deviations, p < 4e-5
    normal = ((chi / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    assert normal < 4, (chi, freedom)


def _triples(trained, prompt: list[int], sampling: SamplingParams) -> dict[tuple[int, ...], float]:
    """Probability of every three tokens, from the plain model."""
    chooser = Chooser(sampling, prompt, 0, 0, trained.tokenizer.size)

    def after(tokens: tuple[int, ...]) -> Distribution:
        with torch.inference_mode():
            return chooser.distribution(trained.model.logits(torch.tensor([[*prompt, *tokens]]))[0, -1])

    found = {(): 1.0}
    for _ in range(3):
        found = {
            (*tokens, int(token)): p * float(q)
            for tokens, p in found.items()
            for token, q in zip(*after(tokens), strict=True)
        }
    return found


def test_a_request_may_refuse_drafts(trained):
    engine = trained.engine(speculate="on")
    engine.generate(conversations(4, temperature=0.0, speculate=False))
    assert engine.stats.drafted == 0
    engine.generate(conversations(4, temperature=0.0, speculate=True))
    assert engine.stats.drafted > 0


def drafts_of(engine, asked: list[Request], monkeypatch, depth=None) -> dict:
    """The MTP module's logits for every draft, by prompt and position; `depth()` says how many to draft."""
    heard, draft = {}, Answer.draft

    def listen(answer: Answer, logit_V: torch.Tensor, likeliest: int) -> None:
        heard[answer.sequence.prompt, answer.sequence.length] = logit_V.clone()
        draft(answer, logit_V, likeliest)

    with monkeypatch.context() as patch:
        if depth is not None:
            patch.setattr(type(engine.pace), "depth", lambda *_: depth())
        patch.setattr(Answer, "draft", listen)
        engine.generate(asked)
    return heard


def furthest(a: dict, b: dict) -> float:
    """The largest difference between two engines' logits where both drafted."""
    both = a.keys() & b.keys()
    assert len(both) > 50
    return max(float((a[place] - b[place]).abs().max()) for place in both)


def test_drafting_that_rests_takes_up_where_it_was(trained, monkeypatch):
    """States of steps without drafts are kept: later drafts are those of an engine that never rests."""
    asked = conversations(8, temperature=0.0, max_tokens=60, ignore_eos=True)
    always = drafts_of(trained.engine(speculate="on"), asked, monkeypatch)

    def after_rests(backlog: int, *, forget: bool = False) -> float:
        monkeypatch.setattr(runner, "BACKLOG", backlog)
        engine, step = trained.engine(speculate="on"), iter(range(10**9))

        def depth() -> int:
            drafting = next(step) % 12 >= 6
            if forget and not drafting:
                engine.runner._seen.clear()
            return int(drafting)

        heard = drafts_of(engine, asked, monkeypatch, depth)
        assert 0 < engine.stats.drafted < len(always)
        return furthest(heard, always)

    own = runner.BACKLOG
    assert own > 6 and after_rests(own) < 1e-3
    assert after_rests(4) < 1e-3  # more than that to keep, in a rest of six steps
    # the same rests with the kept states thrown away: without them the drafts are others
    assert after_rests(own, forget=True) > 0.1


def test_tokens_of_a_stretch_are_those_of_prompt_answer_and_drafts_together():
    answer = {"output": [20, 21, 22, 23], "drafts": [30, 31]}
    sequence = Sequence(0, 0, "", (10, 11, 12), SamplingParams(), 99, **answer)
    whole = [10, 11, 12, 20, 21, 22, 23, 30, 31]
    for start in range(len(whole) + 2):
        for stop in range(start, len(whole) + 3):
            assert sequence.tokens(start, stop) == whole[start:stop]
