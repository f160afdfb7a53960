"""A grammar that takes long keeps nobody waiting but those whose grammar is new, too."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from fathom.engine import Engine, EngineConfig, Request, SamplingParams, grammar

MANY = 48  # above the threads of Python's own pool on any machine


async def first(engine: Engine, schema: dict[str, Any]) -> None:
    sampling = SamplingParams(json_schema=schema, max_tokens=1)
    stream = engine.stream(Request(text="Mia", sampling=sampling))
    await anext(stream)
    await stream.aclose()


@pytest.fixture(scope="module")
def engine(model: Path, play: Any) -> Any:
    made = Engine(model, EngineConfig(**play.SETTINGS))
    yield made
    made.close()


def test_neither_texts_nor_known_grammars_wait_for_slow_ones(
    engine: Engine, play: Any, monkeypatch: pytest.MonkeyPatch
):
    known, go_on = {"type": "boolean"}, threading.Event()
    inner = grammar._checked  # the slow part: a process that compiles it first

    def slow(source: str) -> str:
        assert go_on.wait(play.PATIENCE), "nobody lets it go on"
        return inner(source)

    async def main() -> None:
        await first(engine, known)
        monkeypatch.setattr(grammar, "_checked", slow)
        schemas = [{"type": "integer", "minimum": k} for k in range(MANY)]
        waiting = [asyncio.create_task(first(engine, schema)) for schema in schemas]
        try:
            async with asyncio.timeout(play.PATIENCE / 6):
                assert await asyncio.to_thread(engine.tokenizer.encode, "Mia")
                await first(engine, known)
            assert not any(task.done() for task in waiting)
        finally:
            for task in waiting[1:]:
                task.cancel()
            go_on.set()
            await asyncio.gather(*waiting, return_exceptions=True)
        assert waiting[0].exception() is None

    play.run(main())
