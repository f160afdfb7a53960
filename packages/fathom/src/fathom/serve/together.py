"""The news of several requests as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from fathom.serve.wire import Ask, Link, News

AHEAD = 16  # news that wait for the reader; then their writers do


async def news_of(link: Link, asks: Sequence[Ask]) -> AsyncGenerator[tuple[int, News], None]:
    """(number of the request, news) until all have finished; closed early, all are cancelled. Refused."""
    if len(asks) == 1:
        async with aclosing(link.generate(asks[0])) as stream:
            async for news in stream:
                yield 0, news
        return
    queue: asyncio.Queue[tuple[int, News] | Exception | None] = asyncio.Queue(AHEAD)

    async def pass_on(number: int, ask: Ask) -> None:
        try:
            async with aclosing(link.generate(ask)) as stream:
                async for news in stream:
                    await queue.put((number, news))
            await queue.put(None)
        except Exception as problem:
            await queue.put(problem)

    tasks = [asyncio.create_task(pass_on(number, ask)) for number, ask in enumerate(asks)]
    left = len(tasks)
    try:
        while left:
            one = await queue.get()
            if isinstance(one, Exception):
                raise one
            if one is None:
                left -= 1
            else:
                yield one
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
