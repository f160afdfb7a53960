"""Through the link and a real process: the engine's own answers, in company, cancelled, refused."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from fathom.config.errors import ConfigError
from fathom.engine import Engine, EngineConfig, Request, SamplingParams
from fathom.serve.link import EngineLink
from fathom.serve.wire import Ask, Refused


@pytest.fixture(scope="module")
def engine(model: Path, play: Any) -> Engine:
    return Engine(model, EngineConfig(**play.SETTINGS))


def test_eight_answers_at_once_are_those_of_the_engine(shared: Any, play: Any, engine: Engine):
    params = {"max_tokens": 24, "ignore_eos": True, "seed": 5, "logprobs": 2, "logit_bias": {7: 1.5}, "n": 2}
    texts = [f"Mia had {k} apples" for k in range(4)]
    results = engine.generate([Request(text=t, sampling=SamplingParams(**params)) for t in texts])

    link = shared.link

    async def main() -> None:
        alone = await play.read(link, Ask(text=texts[0], sampling=params))
        heard = await asyncio.gather(*(play.read(link, Ask(text=t, sampling=params)) for t in texts))
        for result, news in zip([results[0], *results], [alone, *heard], strict=True):
            for index, completion in enumerate(result.completions):
                own = [one for one in news if one.index == index]
                assert play.tokens(own, index) == completion.tokens
                assert play.text(own, index) == completion.text
                assert [one.finish_reason for one in own] == [None] * (len(own) - 1) + ["length"]
                assert own[-1].prompt_tokens == result.prompt_tokens
                logs = [entry for one in own for entry in one.logprobs]
                assert logs == [(p.token, p.logprob, p.top) for p in completion.logprobs]
        assert link.open == 0

    shared.run(main())


def test_info_encode_decode_experts_and_stats(shared: Any, play: Any, engine: Engine):
    tokenizer = engine.tokenizer
    talk = ({"role": "user", "content": "Hi <｜User｜> é"},)

    link = shared.link

    async def main() -> None:
        info = link.info
        assert (info.model, info.line) == (engine.model.name, engine.line)
        assert (info.context, info.vocabulary, info.pages) == (2048, tokenizer.size, 256)
        assert info.cache_bytes_per_token < info.plain_cache_bytes_per_token
        assert len(info.experts) == info.layers == 2 and info.experts[-1] == 4
        ids = await link.encode(text="Hé, Mia")
        assert ids == tokenizer.encode("Hé, Mia")
        assert await link.encode(messages=talk) == engine_ids(engine, talk)
        parts = await link.decode([tokenizer.bos, *ids])
        escaped = [part.encode("utf-8", "surrogateescape") for part in parts]
        assert escaped[1:] == [tokenizer.token_bytes(i) for i in ids]
        chosen = await link.experts(ids)
        assert len(chosen) == len(ids)
        assert {len(layer) for token in chosen for layer in token} == {info.experts_per_token}
        scores = await link.score([tokenizer.bos, *ids], 2)
        assert [token for token, _, _ in scores] == [tokenizer.bos, *ids]
        assert scores[0][1:] == (None, ())
        assert all(log <= 0 and len(top) == 2 and top[0][1] >= log for _, log, top in scores[1:])
        before = await link.stats()
        await play.read(link, play.ask())
        stats = await link.stats()
        assert stats["pages_total"] == 256 and stats["pages_used"] == 0 == stats["running"]
        more = {name: stats[name] - before[name] for name in stats}
        assert more["tokens"] == 11 and more["prompt_tokens"] > 1 and 6 <= more["steps"] <= 12
        for wrong in (link.decode([tokenizer.size]), link.experts([-1]), link.experts([]), link.encode()):
            with pytest.raises(Refused) as refused:
                await wrong
            assert refused.value.kind == "request" and "Fix: " in refused.value.message

    shared.run(main())


def engine_ids(engine: Engine, talk: Any) -> list[int]:
    from fathom.data.chat import encode_chat

    return encode_chat(engine.tokenizer, talk, generation_prompt=True)[0]


def test_leaving_early_frees_the_pages_within_a_step(shared: Any, play: Any):
    link = shared.link

    async def main() -> None:
        for _ in range(5):
            streams = [link.generate(play.ask(max_tokens=1500, seed=k)) for k in range(4)]
            for stream in streams:
                await anext(stream)
            assert (await link.stats())["pages_used"] > 0
            for stream in streams:
                await stream.aclose()
            steps = (await link.stats())["steps"]
            while (stats := await link.stats())["pages_used"]:
                assert stats["steps"] <= steps + 3, "the engine goes on for nobody"
            assert stats["running"] == stats["waiting"] == link.open == 0

    shared.run(main())


@pytest.mark.parametrize(
    "ask",
    [
        Ask(text="x", tokens=(1,)),
        Ask(tokens=(10**9,)),
        Ask(tokens=("a",)),
        Ask(text="x", sampling={"nonsense": 1}),
        Ask(text="x", sampling={"temperature": "hot"}),
        Ask(text="x", sampling={"logit_bias": {"a": 1}}),
        Ask(text="x", sampling={"n": 10**6}),
        Ask(text="x", sampling={"max_tokens": 10**6}),
        Ask(messages=({"role": "nobody", "content": ""},)),
        Ask(messages=({"role": "user", "content": "x"},), tools=({"type": "function"},)),
        Ask(text="x", tools=({"type": "function", "function": {"name": "f"}},)),
        Ask(text="a" * (17 << 20)),
    ],
)
def test_what_can_never_be_served_is_refused_in_one_line(shared: Any, play: Any, ask: Ask):
    pid = shared.link.pid
    with pytest.raises(Refused) as refused:
        shared.run(play.read(shared.link, ask))
    assert refused.value.kind == "request"
    assert "\n" not in refused.value.message and "Fix: " in refused.value.message
    assert len(play.tokens(shared.run(play.read(shared.link, play.ask())))) == 12
    assert shared.link.pid == pid


def test_a_full_queue_is_busy_at_once(shared: Any, play: Any):
    link = shared.link

    async def main() -> None:
        streams = [link.generate(play.ask(max_tokens=600, seed=k, n=8)) for k in range(2)]
        firsts = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await asyncio.wait(firsts, return_when=asyncio.FIRST_COMPLETED)
        for n in (1, 16):
            with pytest.raises(Refused) as refused:
                await anext(link.generate(play.ask(n=n)))
            assert refused.value.kind == "busy"
        for first, stream in zip(firsts, streams, strict=True):
            first.cancel()
            await asyncio.wait([first])
            await stream.aclose()
        assert len(play.tokens(await play.read(link, play.ask()))) == 12

    shared.run(main())


def test_a_slow_reader_stops_nobody_and_loses_nothing(shared: Any, play: Any):
    link = shared.link

    async def main() -> None:
        whole = play.tokens(await play.read(link, play.ask(max_tokens=200)))
        async with aclosing(link.generate(play.ask(max_tokens=200))) as slow:
            heard = [await anext(slow)]
            assert len(play.tokens(await play.read(link, play.ask(max_tokens=300, seed=1)))) == 300
            heard += [one async for one in slow]
        assert play.tokens(heard) == whole

    shared.run(main())


def test_the_link_needs_no_torch():
    code = (
        "import sys, fathom.serve.link, fathom.serve.wire;"
        "assert not {'torch', 'tokenizers', 'numpy'} & sys.modules.keys(), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_settings_are_judged_before_anything_starts(model: Path):
    for settings in ({"nonsense": 1}, {"pages": -1}):
        with pytest.raises(ConfigError, match="Fix: "):
            EngineLink(model, settings)


def test_a_narrower_context_is_that_of_every_request(model: Path, play: Any):
    async def main() -> None:
        async with play.linked(model, max_context=40) as link:
            assert link.info is not None and link.info.context == 40
            for wrong in (play.ask(max_tokens=40), Ask(tokens=(3,) * 41)):
                with pytest.raises(Refused, match="40 positions") as refused:
                    await play.read(link, wrong)
                assert refused.value.kind == "request"
            with pytest.raises(Refused, match="40 positions"):
                await link.experts([3] * 41)
            ask = Ask(tokens=(3,) * 30, sampling={"ignore_eos": True})
            news = await play.read(link, ask)
            assert len(play.tokens(news)) == 10 and news[-1].finish_reason == "length"

    play.run(main())


def test_texts_of_tokens_are_joined_from_their_bytes(shared: Any, play: Any, engine: Engine):
    text = "Mia 猫 é"

    async def main() -> None:
        ids = await shared.link.encode(text=text)
        parts = await shared.link.decode([engine.tokenizer.bos, *ids])
        assert parts[0] == "<｜begin▁of▁sentence｜>"
        assert "".join(parts[1:]).encode("utf-8", "surrogateescape").decode() == text
        assert max(len(text.encode()) / len(ids), 2) <= shared.link.info.token_bytes < 100

    shared.run(main())
