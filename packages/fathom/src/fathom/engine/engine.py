"""The engine: requests in, tokens out, a step at a time.

A step asks the scheduler which positions to compute, runs them through the network in one pass, chooses
tokens, and drafts the next. Nothing here is shared between threads: `fathom.engine.stream` runs an engine
in one.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from collections.abc import Sequence as Many
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from fathom.checkpoint.find import resolve
from fathom.checkpoint.load import load_model_state
from fathom.checkpoint.tokenizer_files import check_tokenizer
from fathom.config.engine import EngineConfig
from fathom.config.errors import need
from fathom.config.model import ModelConfig
from fathom.data.tokenizer import Tokenizer
from fathom.engine.admit import check_speculation, need_known, positions, prompt_ids
from fathom.engine.answer import Answer
from fathom.engine.apart import Apart
from fathom.engine.collect import Collector
from fathom.engine.grammar import compile_apart, compile_grammar
from fathom.engine.pace import Pace
from fathom.engine.request import Delta, Logprob, Request, RequestError, Result
from fathom.engine.routes import need_few_choices, next_routes
from fathom.engine.runner import Pass, Runner
from fathom.engine.sample import Chooser, NoTokenError
from fathom.engine.scheduler import Scheduler, Work
from fathom.engine.score import need_few_entries, next_scores
from fathom.engine.self_test import Recorded, find_inexact
from fathom.engine.sequence import Sequence
from fathom.engine.start import choose_backend, number_of_pages
from fathom.engine.stats import Stats
from fathom.engine.stream import EngineError, Streams
from fathom.engine.weights import pack_weights
from fathom.ops.allocator import large_pages


class Engine:
    """Continuous batching over a paged latent cache, with MTP speculative decoding.

    Logits of a request are bitwise the same alone or in company, in any order of arrival, after a hit in the
    prefix tree or a preemption, with drafts or without; `line` says so, or says where this machine cannot.
    """

    def __init__(self, checkpoint: Path | str, config: EngineConfig | None = None) -> None:
        """Read a run, a checkpoint or any official folder. ConfigError or DataError in one line."""
        place = resolve(Path(checkpoint))
        model, state = load_model_state(place)
        tokenizer = Tokenizer.load(place)
        check_tokenizer(tokenizer.size, model)
        self._build(model, state, tokenizer, config or EngineConfig())

    @classmethod
    def of(
        cls, model: ModelConfig, state: dict[str, Tensor], tokenizer: Tokenizer, config: EngineConfig
    ) -> Engine:
        """From weights in memory, in the names of `fathom.model`; the engine keeps a copy of its own."""
        engine = cls.__new__(cls)
        own = {name: t.clone() if t.ndim < 2 or name == "embed.weight" else t for name, t in state.items()}
        engine._build(model, own, tokenizer, config)  # packing copies the others
        return engine

    def _build(
        self, model: ModelConfig, state: dict[str, Tensor], tokenizer: Tokenizer, config: EngineConfig
    ) -> None:
        self.model, self.tokenizer, self.config = model, tokenizer, config
        backend = choose_backend(config, state["embed.weight"].dtype)
        check_speculation(config, model)
        draft = config.speculate != "off" and model.mtp.depth > 0
        for name, tensor in state.items():
            kept = torch.float32 if ".router." in name else backend.dtype  # V3 routes in fp32
            state[name] = tensor.to(backend.device, kept)
        pages = number_of_pages(config, model, backend, draft=draft)
        with torch.inference_mode():
            products = Recorded(backend.products)
            weights = pack_weights(model, state, products, draft=draft)
            if backend.device.type == "cpu":
                large_pages()
            self.inexact = find_inexact(weights, products, config.page_size)  # () where the promise holds
            self.runner = Runner(weights, pages, config.page_size, tokenizer.size)
        self.backend = backend
        # An entry of the MTP module depends on the token after it: shared pages must agree in one more.
        self.scheduler = Scheduler(config, pages, beyond=int(self.runner.drafts))
        self.pace = Pace(config.draft_tokens if draft else 0, adaptive=config.speculate == "auto")
        self.stats = Stats()
        self.watch: Callable[[Sequence, int, Tensor], None] | None = None  # is told every row that is used
        self._answers: dict[Sequence, Answer] = {}
        self._by_request: dict[int, list[Sequence]] = {}
        self._news: deque[Delta] = deque()
        self._next_id, self._depth = 0, 0
        self._streams, self._streaming = Streams(self, name=f"engine of {model.name}"), False

    @property
    def line(self) -> str:
        """What a start-up line says."""
        b, pages = self.backend, self.scheduler.pool.total
        mode = {"auto": "while it pays", "on": "always", "off": "off"}[self.config.speculate]
        module = "MTP off" if self.model.mtp.depth else "no MTP module"
        draft = f"MTP {mode}" if self.runner.drafts else module
        exact = "the same bits in any company"
        if self.inexact:
            exact = f"NOT the same bits in any company: {', '.join(self.inexact)} depend on it"
        precision = "fp32" if b.dtype == torch.float32 else "bf16"
        return (
            f"{self.model.name} on {b.device.type} in {precision}, {b.products.name}; {pages:,} pages of "
            f"{self.config.page_size} positions ({self.runner.pool.nbytes >> 20:,} MiB); {draft}; {exact}"
        )

    @property
    def over(self) -> bool:
        """Whether the thread broke down, and no request is taken any more."""
        return self._streams.over

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._answers or self._news)

    def submit(self, request: Request) -> int:
        """Queue a request and return its id.

        raises   RequestError for what can never be served, BusyError when the queue is full
        """
        params = request.sampling
        self.scheduler.need_room(params.n)
        prompt = prompt_ids(request, self.tokenizer)
        most = positions(prompt, params, self.context, self.tokenizer.size, self._capacity)
        check_speculation(self.config, self.model, params)
        grammar = compile_grammar(params, self.tokenizer)
        seed = params.seed if params.seed is not None else secrets.randbits(63)
        sequences, answers = [], []
        for index in range(params.n):
            sequence = Sequence(self._next_id, index, request.key, tuple(prompt), params, most)
            chooser = Chooser(params, prompt, seed, index, self.tokenizer.size)
            matcher = grammar.matcher() if grammar is not None else None
            answer = Answer(sequence, chooser, matcher, self.tokenizer)
            answer.may_draft = self.runner.drafts and params.speculate is not False
            sequences.append(sequence)
            answers.append(answer)
        self.scheduler.submit(sequences)
        self._answers |= dict(zip(sequences, answers, strict=True))
        self._by_request[self._next_id] = sequences
        self._next_id += 1
        return self._next_id - 1

    @property
    def context(self) -> int:
        """Positions of prompt and answer together: the model's, or what the settings leave of them."""
        most = self.model.max_positions
        return min(self.config.max_context, most) if self.config.max_context else most

    @property
    def _capacity(self) -> int:
        """Positions all pages together hold."""
        return self.scheduler.pool.total * self.config.page_size

    def cancel(self, request_id: int) -> None:
        """End a request; its pages are free at once, and the next step brings its last deltas."""
        for sequence in self._by_request.get(request_id, ()):
            if sequence in self._answers:
                self._answers[sequence].finish("cancelled")
                self._end(sequence)

    @torch.inference_mode()
    def step(self) -> list[Delta]:
        """Compute what is planned, and say what was written."""
        began = time.perf_counter()
        works = self.scheduler.plan()
        if works:
            verified = max((len(w.sequence.drafts) for w in works), default=0)
            done = self.runner.run(works)
            written = self._choose(done)
            self._follow(done)
            self._measure(works, verified, written, time.perf_counter() - began)
        if self.config.debug:
            self.scheduler.check()
        news = list(self._news)
        self._news.clear()
        return news

    def _choose(self, done: Pass) -> int:
        """Tokens for every row that has one to give; the number written by decoding."""
        chosen = [(w, f) for w, f in zip(done.works, done.first, strict=True) if _gives(w)]
        rows = [r for w, f in chosen for r in _rows(w, f)]
        logit_RV, likeliest = self.runner.logits(done, rows) if rows else (torch.empty(0), [])
        at, written = 0, 0
        for work, first in chosen:
            count = len(_rows(work, first))
            written += self._choose_one(work, logit_RV[at : at + count], likeliest[at : at + count])
            at += count
        for work in done.works:
            if not _gives(work) and work.sequence in self._answers:
                self.scheduler.advance(work.sequence, work.start + work.count)
        return written

    def _choose_one(self, work: Work, logit_TV: Tensor, likeliest_T: list[int]) -> int:
        s, answer = work.sequence, self._answers[work.sequence]
        before, drafts = s.length, len(s.drafts)
        try:
            what = "the model's logits are not finite"
            need(min(likeliest_T) >= 0, what, fix="check the weights, or compute in fp32", error=NoTokenError)
            (used, stood), error = answer.choose(logit_TV, likeliest_T), ""
        except NoTokenError as problem:
            (used, stood), error = (s.length - before, 0), str(problem)
            answer.finish("error")
        if self.watch is not None:
            for t in range(used):
                self.watch(s, before + t, logit_TV[t])
        self.stats.decoded(work.kind == "decode", drafts, stood, used)
        if work.kind == "prefill":
            self.stats.began(len(s.prompt), s.cached)
        ended = answer.finish_reason is not None
        if not (ended and self.runner.drafts):  # then the MTP module never sees the last chunk of a prompt
            self.scheduler.advance(s, work.start + used if work.kind == "decode" else before)
        if ended:
            self._end(s, error)
        else:
            self._news.append(answer.news())
        return used if work.kind == "decode" else 0

    def _follow(self, done: Pass) -> None:
        if self.runner.drafts:
            ready = sum(self._drafts_for(w.sequence) for w in done.works)
            self._depth = self.pace.depth(ready) if ready else 0
            self.runner.follow(done, self._depth, self._answers)

    def _drafts_for(self, sequence: Sequence) -> bool:
        """Whether only its last token is left to compute, and a draft is wanted and can be followed."""
        answer = self._answers.get(sequence)
        wanted = answer is not None and answer.may_draft and sequence.length + 1 < sequence.most
        return wanted and bool(sequence.output) and sequence.computed + 1 == sequence.length

    def _measure(self, works: list[Work], verified: int, written: int, seconds: float) -> None:
        """Steps with as many drafts made as verified teach the pace, less the share of rows of prompts."""
        decoding = [w.count for w in works if w.kind == "decode"]
        self.stats.step(len(decoding) == len(works), seconds)
        if decoding and verified == self._depth:
            share = sum(decoding) / sum(w.count for w in works)
            tokens = written / len(decoding)
            self.pace.saw(verified, len(decoding), tokens=tokens, seconds=seconds * share)

    def _end(self, sequence: Sequence, error: str = "") -> None:
        self._news.append(self._answers.pop(sequence).news(error))
        self.runner.forget(sequence)
        self.scheduler.retire(sequence)
        siblings = self._by_request[sequence.request_id]
        if not any(s in self._answers for s in siblings):
            del self._by_request[sequence.request_id]

    def generate(
        self, requests: Iterable[Request | str], *, told: Callable[[int], None] | None = None
    ) -> list[Result]:
        """Answer all of them, as many at a time as fit, in the given order.

        requests   a text stands for `Request(text=...)`
        told       is called with the number of requests finished so far
        raises     RequestError for the first that can never be served; those under way are cancelled
        """
        what = "the engine is streaming, and its thread makes every step"
        need(not self._streaming, what, fix="use stream, or close the engine first", error=EngineError)
        return Collector(self).run(requests, told)

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The deltas of one request as they come, among those of any number of others.

        The first call starts a thread that from then on makes every step, so `submit`, `cancel` and `step`
        are its own. A consumer that leaves early cancels its request. Errors as `submit`, at the first
        iteration; EngineError when the engine breaks down or is closed.
        """
        self._streaming = True
        if request.sampling.json_schema is not None or request.sampling.regex is not None:
            # Here rather than in `submit`: a grammar may take seconds, and nobody else should wait for it.
            await compile_apart(request.sampling, self.tokenizer)
        async with aclosing(self._streams.stream(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def pulse(self) -> None:
        """Return when the thread has ended the step it is at: it goes on. EngineError as `stream`."""
        self._streaming = True
        await self._streams.between(lambda: None)

    async def experts(self, tokens: Many[int]) -> list[list[list[int]]]:
        """For each token the experts that each MoE layer chooses, highest weight first.

        A plain forward of these tokens from position 0, in chunks between the steps of what is streaming.
        RequestError: unknown tokens, or too many.
        """
        need_few_choices(len(tokens), self.model)
        text, chosen = self._apart(tokens), list[list[list[int]]]()
        while not text.done:
            chosen += await self._streams.between(lambda: next_routes(text))
        return chosen

    async def score(self, tokens: Many[int], top: int = 0) -> list[Logprob]:
        """The log probability of each token but the first behind those before it, and of the `top` likeliest.

        As `experts`: beside the service, nothing is kept, and the same errors.
        """
        need_few_entries(len(tokens), top)
        text, scores = self._apart(tokens), list[Logprob]()
        while not text.done:
            scores += await self._streams.between(lambda: next_scores(text, top, self.tokenizer.size))
        return scores

    def _apart(self, tokens: Many[int]) -> Apart:
        prompt, most = list(tokens), self.context
        need_known(prompt, self.tokenizer.size)
        what = f"{len(prompt)} tokens do not fit the {most} positions of the model's context"
        need(len(prompt) <= most, what, fix="give less", error=RequestError)
        self._streaming = True
        return Apart(self.runner.weights, prompt, self.config.page_size, self.config.prefill_tokens)

    def counters(self) -> dict[str, float]:
        """`stats`, and how full queue and cache are. From any thread: no number waits for a step."""
        pool, tree = self.scheduler.pool, self.scheduler.tree
        free, idle = pool.free, tree.evictable
        return {
            "pages_total": pool.total,
            "pages_used": max(0, pool.total - free - idle),
            "pages_cached": idle,
            "running": self.scheduler.num_running,
            "waiting": self.scheduler.queued,
            **asdict(self.stats),
        }

    def close(self) -> None:
        """Cancel what is streaming and end the thread; without one nothing happens."""
        self._streams.close()
        self._streams, self._streaming = Streams(self, name=f"engine of {self.model.name}"), False


def _gives(work: Work) -> bool:
    """Whether a token is to be chosen behind these positions."""
    s = work.sequence
    return work.kind == "decode" or (
        work.kind == "prefill" and not s.output and work.start + work.count == len(s.prompt)
    )


def _rows(work: Work, first: int) -> range:
    """The rows whose logits choose."""
    last = first + work.count
    return range(first, last) if work.kind == "decode" else range(last - 1, last)
