"""The server's side of one engine process: numbers for what is asked, and who waits for which answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fathom.config.errors import plain
from fathom.serve.frames import brief, read_frame, read_info, read_news
from fathom.serve.inbox import Inbox
from fathom.serve.wire import Ask, Info, Refused, pack

KINDS = ("request", "busy", "engine")


class Connection:
    """Lives as long as its process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.info: Info | None = None
        self.ready = asyncio.Event()  # or over
        self.failure = ""  # the engine's own word on why it cannot start
        self._reader, self._writer = reader, writer
        self._inboxes: dict[int, Inbox] = {}
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._next = 0
        self._over = False

    async def run(self) -> str:
        """Hand out what the engine says, until it says no more; "" or what was wrong with it."""
        try:
            while (message := await read_frame(self._reader)) is not None:
                self._take(message)
        except Exception as problem:  # whatever it says can end its own connection only
            return f"it spoke nonsense ({type(problem).__name__}: {plain(str(problem))})"
        return self.failure

    def end(self, why: str) -> None:
        """The process is gone: everybody who waits is told at once."""
        self._over, self.info = True, None
        self.ready.set()
        for box in self._inboxes.values():
            box.fail(Refused("engine", why))
        for call in self._calls.values():
            if not call.done():
                call.set_exception(Refused("engine", why))

    async def submit(self, ask: Ask, answers: int) -> tuple[int, Inbox]:
        """A request's number, and where its news arrive. Whoever has it leaves it in the end."""
        number, box = self._number(), Inbox(answers)
        self._inboxes[number] = box
        try:
            await self._send({"op": "submit", "id": number, "request": brief(ask)})
        except BaseException:
            self.leave(number)
            raise
        return number, box

    def leave(self, number: int) -> None:
        """Nobody reads the news of this request any more; what still runs of it is cancelled."""
        box = self._inboxes.pop(number)
        if not box.finished:
            self._say({"op": "cancel", "id": number})

    async def call(self, op: str, words: Mapping[str, Any]) -> Any:
        """Ask, and wait for the answer."""
        number = self._number()
        self._calls[number] = answer = asyncio.get_running_loop().create_future()
        try:
            await self._send({"op": op, "id": number, **words})
            return await answer
        except asyncio.CancelledError:
            self._say({"op": "cancel", "id": number})
            raise
        finally:
            del self._calls[number]
            answer.cancel()  # where sending failed: or it would complain that nobody asked

    def drain(self) -> None:
        """The engine finishes what it has, and ends."""
        self._say({"op": "drain"})

    def _number(self) -> int:
        self._next += 1
        return self._next

    async def _send(self, message: Mapping[str, Any]) -> None:
        try:
            frame = pack(message)
        except ValueError as problem:
            raise Refused("request", f"the request is too long ({problem}). Fix: shorten it") from None
        if not self._over:
            self._writer.write(frame)
            with suppress(ConnectionError):  # `end` tells all who wait
                await self._writer.drain()

    def _say(self, message: Mapping[str, Any]) -> None:
        if not self._over:
            self._writer.write(pack(message))

    def _take(self, message: dict[str, Any]) -> None:
        op, number = message["op"], message.get("id")
        if op == "news":
            box = self._inboxes.get(number) if isinstance(number, int) else None
            if box is not None:
                box.put(read_news(message))
        elif op == "answer":
            self._answer(number, message["value"])
        elif op == "refused":
            kind, text = message["kind"], message["message"]
            if kind not in KINDS:
                raise ValueError(f"a refusal of kind {kind!r}")
            self._refuse(number, Refused(kind, str(text)))
        elif op == "ready":
            self.info = read_info(message["info"])
            self.ready.set()
        elif op == "failed":
            self.failure = str(message["message"])
        else:
            raise ValueError(f"a message {op!r} that the server does not know")

    def _answer(self, number: Any, value: Any) -> None:
        call = self._calls.get(number)
        if call is not None and not call.done():
            call.set_result(value)

    def _refuse(self, number: Any, refused: Refused) -> None:
        box, call = self._inboxes.get(number), self._calls.get(number)
        if box is not None:
            box.fail(refused)
        elif call is not None and not call.done():
            call.set_exception(refused)
