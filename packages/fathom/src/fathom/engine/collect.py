"""Many requests to their ends, without a thread: what `Engine.generate` does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Many

from fathom.config.errors import need, quoted
from fathom.engine.request import BusyError, Completion, Delta, Request, RequestError, Result
from fathom.engine.stream import Core


def completion(heard: Many[Delta]) -> Completion:
    """One answer from all its deltas, the last of which says why it ended."""
    last = heard[-1]
    assert last.finish_reason is not None, "an answer that goes on has no completion"
    return Completion(
        index=last.index,
        text="".join(delta.text for delta in heard),
        tokens=tuple(token for delta in heard for token in delta.tokens),
        finish_reason=last.finish_reason,
        logprobs=tuple(entry for delta in heard for entry in delta.logprobs),
        error=last.error,
    )


class Collector:
    """Submits, steps and gathers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._heard: dict[int, list[list[Delta]]] = {}
        self._done = 0

    def run(
        self, requests: Iterable[Request | str], told: Callable[[int], None] | None = None
    ) -> list[Result]:
        """See `Engine.generate`."""
        what, fix = "requests is one text or request, not a list of them", "put it into a list"
        need(not isinstance(requests, (str, bytes, Request)), what, fix=fix, error=RequestError)
        waiting = [Request(text=r) if isinstance(r, str) else r for r in requests]
        for r in waiting:
            what = f"requests holds {quoted(r)}"
            need(isinstance(r, Request), what, fix="give texts or Requests", error=RequestError)
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
            self._heard[request_id] = [[] for _ in range(request.sampling.n)]

    def _take(self, delta: Delta) -> None:
        heard = self._heard.get(delta.request_id)
        if heard is None:  # somebody else's
            return
        heard[delta.index].append(delta)
        self._done += all(news and news[-1].finish_reason is not None for news in heard)

    def _result(self, request_id: int) -> Result:
        heard = self._heard[request_id]
        first = heard[0][0]
        return Result(
            request_id=request_id,
            prompt_tokens=first.prompt_tokens,
            cached_tokens=first.cached_tokens,
            completions=tuple(map(completion, heard)),
        )
