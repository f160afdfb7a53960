"""The experts that the engine says are those that the model's own router chooses."""

from __future__ import annotations

import asyncio

import pytest
import torch

from fathom.engine import Request, RequestError, SamplingParams, routes
from fathom.engine.stream import EngineError


@pytest.mark.parametrize("length, chunk", [(1, 512), (70, 512), (70, 16), (512, 100)])
def test_experts_are_those_of_the_router(trained, length, chunk):
    engine = trained.engine(precision="fp32", prefill_tokens=chunk)
    tokens = [(7 * k * k + k) % 390 for k in range(length)]
    with torch.inference_mode():
        expected = []
        for routing in trained.model(torch.tensor([tokens])).routing:
            order = routing.weight_NK.argsort(dim=-1, descending=True, stable=True)
            expected.append(routing.expert_NK.gather(-1, order).tolist())
    got = asyncio.run(engine.experts(tokens))
    engine.close()
    assert len(got) == length and len(expected) == 2
    assert got == [[layer[t] for layer in expected] for t in range(length)]


def test_running_answers_do_not_notice(trained):
    asked = Request(text="Mia had", sampling=SamplingParams(max_tokens=60, seed=3, ignore_eos=True))
    alone = trained.engine().generate([asked])[0].completions[0].tokens
    engine = trained.engine(prefill_tokens=16)

    async def answer() -> tuple[int, ...]:
        return tuple([t async for delta in engine.stream(asked) for t in delta.tokens])

    async def main() -> tuple[list, ...]:
        return await asyncio.gather(answer(), engine.experts(list(range(200))), answer())

    first, chosen, second = asyncio.run(main())
    assert first == second == alone and len(chosen) == 200
    assert engine.counters()["pages_used"] == 0
    engine.close()


def test_too_much_is_refused_before_anything_is_computed(trained, monkeypatch):
    engine = trained.engine()
    monkeypatch.setattr(routes, "MOST_CHOICES", 40)
    for tokens in ([], [400], [-1], [1] * 513, [1] * 11):
        with pytest.raises(RequestError, match="Fix: "):
            asyncio.run(engine.experts(tokens))
    assert len(asyncio.run(engine.experts([1] * 10))) == 10
    engine.close()


def test_who_asks_a_closed_engine_is_told(trained):
    engine = trained.engine()
    streams = engine._streams
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        asyncio.run(streams.between(lambda: 1))


def test_errands_fail_alone(trained):
    engine = trained.engine()

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await engine._streams.between(lambda: 1 // 0)
        assert await engine._streams.between(lambda: 5) == 5

    asyncio.run(main())
    engine.close()
