"""Exact whatever the company: every logit a request is answered with has the bits it has alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fathom.config.model import AttentionConfig
from fathom.data.smallworld import prompts
from fathom.engine.attention import decode_attention
from fathom.engine.request import Request, SamplingParams
from fathom.model.transformer import Transformer
from fathom.ops import products

Logits = dict[tuple[int, int, int], Tensor]  # (request, answer, position) -> a row

PAGE = {"page_size": 8, "pages": 600, "max_waiting": 1000}
ALONE = PAGE | {"speculate": "off", "prefix_cache": False, "max_running": 1, "debug": False}
COMPANY = {
    "a large batch, hits in the prefix tree": {"speculate": "off"},
    "small chunks, pages run out": {"speculate": "off", "prefill_tokens": 24, "pages": 40},
    "drafts, pages run out": {"speculate": "on", "draft_tokens": 2, "pages": 40},
    "drafts when they pay, few at a time": {"speculate": "auto", "max_running": 3, "prefix_cache": False},
}


def requests(count: int, seed: int) -> list[Request]:
    """Conversations with common beginnings, noise, and prompts of whole pages; half of them sampled."""
    dice = random.Random(seed)
    asked = list(prompts(seed, count, held_out=True))
    made = []
    for i, prompt in enumerate(asked):
        sampling = {"max_tokens": dice.randint(1, 20), "ignore_eos": dice.random() < 0.5}
        if i % 2:
            options = (
                {"top_p": 0.9}, {"top_k": 20}, {"min_p": 0.05}, {"repetition_penalty": 1.2},
                {"presence_penalty": 0.5, "frequency_penalty": 0.3}, {"logit_bias": {70: 3.0}},
            )  # fmt: skip
            sampling |= {"temperature": dice.choice((0.5, 1.0)), "seed": i} | dice.choice(options)
        else:
            sampling |= {"temperature": 0.0}
        params = SamplingParams(**sampling)
        if i % 4 == 3:
            made.append(Request(tokens=[dice.randrange(3, 300) for _ in range(dice.choice((1, 16, 32, 50)))],
                                sampling=params))  # fmt: skip
        else:
            question = dict(prompt.messages[-1])
            question["content"] = question["content"][-dice.choice((60, 120)) :]
            system = {"role": "system", "content": "You know one little world. " * (i % 3)}
            made.append(Request(messages=[system, question], sampling=params))
    return made


def logits_alone(trained, asked: list[Request], settings: dict = PAGE) -> tuple[Logits, list]:
    """Each request by itself in an engine without drafts, tree or neighbours."""
    engine, found, results = trained.engine(**ALONE | settings), {}, []
    for i, request in enumerate(asked):
        engine.watch = lambda s, position, row, i=i: found.update({(i, s.index, position): row.clone()})
        results += engine.generate([request])
    return found, results


def logits_in_company(
    trained, asked: list[Request], seed: int, settings: dict
) -> tuple[Logits, list, object]:
    """All of them, arriving at random moments in a random order."""
    dice, engine, found = random.Random(seed), trained.engine(**PAGE | settings), {}
    order = list(range(len(asked)))
    dice.shuffle(order)
    which, texts = {}, [[] for _ in asked]
    engine.watch = lambda s, p, row: found.update({(which[s.request_id], s.index, p): row.clone()})
    while order or engine.busy:
        for _ in range(min(dice.choice((0, 0, 1, 3, 20)), len(order))):
            i = order.pop()
            which[engine.submit(asked[i])] = i
        for delta in engine.step():
            texts[which[delta.request_id]] += delta.tokens
    return found, texts, engine


def differing(found: Logits, alone: Logits) -> Iterator[tuple[int, int, int]]:
    for place, row in alone.items():
        if place not in found or not torch.equal(found[place], row):
            yield place


@pytest.fixture(scope="module")
def two_hundred(trained) -> tuple[list[Request], Logits, list]:
    asked = requests(200, seed=11)
    return asked, *logits_alone(trained, asked)


@pytest.mark.parametrize("name", COMPANY)
def test_200_requests_have_bitwise_the_logits_they_have_alone(trained, two_hundred, name):
    asked, alone, results = two_hundred
    found, texts, engine = logits_in_company(trained, asked, 5, COMPANY[name])
    assert not engine.inexact
    assert len(alone) >= 800 and len(found) == len(alone)
    assert list(differing(found, alone)) == []
    assert texts == [list(r.completions[0].tokens) for r in results]
    # the company was company
    stats, scheduler = engine.stats, engine.scheduler
    assert stats.trunk_passes > 1.5 * stats.decode_steps or engine.config.max_running < 16
    if "pages run out" in name:
        assert scheduler.preemptions > 3
    if engine.config.prefix_cache:
        assert scheduler.tree.hits > 500
    if engine.config.speculate == "on":
        assert stats.accepted > 50 and stats.drafted - stats.accepted > 50


@pytest.mark.soak
@pytest.mark.parametrize("name", COMPANY)
def test_1000_requests_have_bitwise_the_logits_they_have_alone(trained, name):
    asked = requests(1000, seed=12)
    alone, results = logits_alone(trained, asked)
    found, texts, _ = logits_in_company(trained, asked, 6, COMPANY[name])
    assert list(differing(found, alone)) == [] and len(found) == len(alone)
    assert texts == [list(r.completions[0].tokens) for r in results]


def test_products_that_depend_on_company_are_found_and_said(trained, monkeypatch):
    class Liar(products.PlainProducts):
        name = "products that change with company"

        def pack(self, weight_YX: Tensor) -> products.Product:
            inner = super().pack(weight_YX)
            return lambda x_NX: inner(x_NX) * (1 + 2**-22 * (len(x_NX) >= 8))

    monkeypatch.setattr("fathom.engine.start.choose_products", lambda device, dtype: Liar())
    asked = requests(12, seed=3)
    alone, _ = logits_alone(trained, asked)
    found, _, engine = logits_in_company(trained, asked, 5, {"speculate": "off"})
    assert list(differing(found, alone)), "this test compares nothing"
    assert "NOT the same bits" in engine.line and Liar.name in engine.line


def test_tiled_products_keep_the_promise_too(trained, monkeypatch):
    monkeypatch.setattr("fathom.engine.start.choose_products", lambda device, dtype: products.TiledProducts())
    asked = requests(40, seed=4)
    alone, _ = logits_alone(trained, asked)
    found, _, engine = logits_in_company(trained, asked, 5, COMPANY["drafts, pages run out"])
    assert not engine.inexact and "the same bits in any company" in engine.line
    assert list(differing(found, alone)) == []


ODD = [
    AttentionConfig(num_heads=3, q_rank=7, kv_rank=33, nope_head=9, rope_head=6, value_head=5),
    AttentionConfig(num_heads=4, q_rank=0, kv_rank=16, nope_head=8, rope_head=8, value_head=6),
    AttentionConfig(num_heads=1, q_rank=24, kv_rank=17, nope_head=7, rope_head=2, value_head=13),
]


@pytest.mark.parametrize("attention", ODD, ids=lambda a: f"{a.num_heads} heads, latent {a.kv_rank}")
@pytest.mark.parametrize("page_size", [7, 16])
def test_odd_widths_keep_the_promise(trained, attention, page_size):
    config = replace(trained.model.config, attention=attention, hidden_size=45, init_std=0.3)
    odd = trained._replace(model=Transformer(config, seed=8))
    asked = requests(40, seed=5)
    settings = {"page_size": page_size, "pages": 400}
    alone, _ = logits_alone(odd, asked, settings)
    found, _, engine = logits_in_company(odd, asked, 5, settings | {"speculate": "on"})
    assert engine.inexact == ()
    assert list(differing(found, alone)) == [] and len(found) == len(alone)


def test_attention_that_depends_on_company_is_found_and_said(trained, monkeypatch):
    def liar(q_RHE: Tensor, *rest: object) -> Tensor:
        return decode_attention(q_RHE, *rest) * (1 + 2**-20 * (len(q_RHE) > 4))

    monkeypatch.setattr("fathom.engine.forward.decode_attention", liar)
    engine = trained.engine()
    assert engine.inexact == ("the network as a whole",) and "NOT the same bits" in engine.line


def test_what_an_answer_wrote_is_not_shared_with_prompts(trained):
    """A page that decoding filled differs in rounding from the same positions of a prompt."""
    first = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    engine = trained.engine(speculate="off")
    prompt = list(range(20, 40))
    answer = list(engine.generate([Request(tokens=prompt, sampling=first)])[0].completions[0].tokens)
    again = Request(tokens=prompt + answer, sampling=SamplingParams(temperature=0, max_tokens=3))
    result = engine.generate([again])[0]
    assert result.cached_tokens == 16  # the one page that the prompt filled by itself
    assert engine.generate([again])[0].cached_tokens == (len(prompt + answer) - 1) // 16 * 16
