"""Many requests to their ends, without a thread: what `Engine.generate` does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from fathom.engine.request import BusyError, Completion, Delta, Logprob, Request, Result


class Core(Protocol):
    """What is needed of an engine."""

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        ...

    def submit(self, request: Request) -> int:
        """Queue a request."""
        ...

    def cancel(self, request_id: int) -> None:
        """End one."""
        ...

    def step(self) -> list[Delta]:
        """Do some work."""
        ...


class _Part:
    """One answer so far."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.tokens: list[int] = []
        self.logprobs: list[Logprob] = []
        self.last: Delta | None = None

    def add(self, delta: Delta) -> None:
        self.text.append(delta.text)
        self.tokens += delta.tokens
        self.logprobs += delta.logprobs
        self.last = delta if delta.finish_reason is not None else None

    def completion(self) -> Completion:
        assert self.last is not None and self.last.finish_reason is not None
        return Completion(
            index=self.last.index,
            text="".join(self.text),
            tokens=tuple(self.tokens),
            finish_reason=self.last.finish_reason,
            logprobs=tuple(self.logprobs),
            error=self.last.error,
        )


class Collector:
    """Submits, steps and gathers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._parts: dict[int, list[_Part]] = {}
        self._first: dict[int, Delta] = {}
        self._done = 0

    def run(
        self, requests: Iterable[Request | str], told: Callable[[int], None] | None = None
    ) -> list[Result]:
        """See `Engine.generate`."""
        waiting = [Request(text=r) if isinstance(r, str) else r for r in requests]
        ids: list[int] = []
        try:
            while len(ids) < len(waiting) or self._done < len(waiting):
                self._submit(waiting, ids)
                before = self._done
                for delta in self._core.step():
                    self._take(delta)
                if told is not None and self._done > before:
                    told(self._done)
        except BaseException:
            for request_id in ids:
                self._core.cancel(request_id)
            self._core.step()
            raise
        return [self._result(request_id) for request_id in ids]

    def _submit(self, waiting: list[Request], ids: list[int]) -> None:
        """As many as the queue takes."""
        while len(ids) < len(waiting):
            request = waiting[len(ids)]
            try:
                request_id = self._core.submit(request)
            except BusyError:
                if self._done == len(ids):  # nobody else will make room
                    raise
                return
            ids.append(request_id)
            self._parts[request_id] = [_Part() for _ in range(request.sampling.n)]

    def _take(self, delta: Delta) -> None:
        parts = self._parts.get(delta.request_id)
        if parts is None:  # somebody else's
            return
        parts[delta.index].add(delta)
        if delta.index == 0:
            self._first.setdefault(delta.request_id, delta)
        if delta.finish_reason is not None and all(part.last is not None for part in parts):
            self._done += 1

    def _result(self, request_id: int) -> Result:
        completions = tuple(part.completion() for part in self._parts[request_id])
        return Result(
            request_id=request_id,
            prompt_tokens=self._first[request_id].prompt_tokens,
            cached_tokens=self._first[request_id].cached_tokens,
            completions=completions,
        )
