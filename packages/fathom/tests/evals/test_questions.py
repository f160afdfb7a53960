"""Questions are asked together and answered as one by one; only right answers count."""

from __future__ import annotations

import pytest
import torch

from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig
from fathom.data.chat import encode_chat
from fathom.data.smallworld import prompts
from fathom.data.tokenizer import Tokenizer
from fathom.engine import Engine, EngineConfig, RequestError
from fathom.evals.questions import Answered, ask, share_right
from fathom.model.generate import generate
from fathom.model.transformer import Transformer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["Mia took the red kite to the park. Where was it? " * 50], 330)


@pytest.fixture(scope="module")
def model(tokenizer):
    return Transformer(
        ModelConfig(
            vocab_size=tokenizer.size, hidden_size=32, num_layers=2, dense_layers=1, dense_size=48,
            max_positions=1024, init_std=0.2, mtp=MTPConfig(depth=1),
            attention=AttentionConfig(
                num_heads=2, q_rank=16, kv_rank=16, nope_head=8, rope_head=8, value_head=8
            ),
            moe=MoEConfig(
                num_experts=4, experts_per_token=2, num_groups=2, groups_per_token=1, expert_size=16
            ),
        )
    )  # fmt: skip


def engine_of(model, tokenizer, **settings: object) -> Engine:
    config = EngineConfig(**{"device": "cpu", "debug": True} | settings)
    return Engine.of(model.config, model.state_dict(), tokenizer, config)


@pytest.mark.parametrize("settings", [{"speculate": "off"}, {"speculate": "on", "max_running": 5}])
def test_together_they_are_answered_as_one_by_one(model, tokenizer, settings):
    asked = list(prompts(1, 12, held_out=True))
    counted: list[int] = []
    answers = ask(engine_of(model, tokenizer, **settings), asked, max_tokens=6, told=counted.append)
    assert [a.prompt for a in answers] == asked
    assert counted == sorted(counted) and counted[-1] == 12
    for answer in answers:
        ids, _ = encode_chat(tokenizer, answer.prompt.messages, generation_prompt=True)
        drawn = [int(t) for t in generate(model, torch.tensor([ids]), max_tokens=6, tokens=tokenizer.size)]
        end = drawn.index(tokenizer.eos) if tokenizer.eos in drawn else len(drawn)
        assert answer.reply == tokenizer.decode(drawn[:end])


def test_an_untrained_model_is_wrong_and_a_right_reply_counts(model, tokenizer):
    asked = list(prompts(1, 4, held_out=True))
    assert share_right(ask(engine_of(model, tokenizer), asked, max_tokens=4)) == 0.0
    half = [Answered(asked[0], asked[0].answer, True), Answered(asked[1], "", False)]
    assert share_right(half) == 0.5


def test_a_question_that_cannot_fit_is_refused_in_one_line(model, tokenizer):
    with pytest.raises(RequestError, match=r"do not fit.*Fix: ") as caught:
        ask(engine_of(model, tokenizer, pages=1), list(prompts(1, 2, held_out=True)))
    assert "\n" not in str(caught.value)
