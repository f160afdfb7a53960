"""What is not a completion: models, tokens, health, figures, the engine's own routes, the page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fathom.serve import limits
from fathom.serve.completions import token_ids
from fathom.serve.errors import ApiError, json_response
from fathom.serve.fields import Fields, read_object
from fathom.serve.messages import read_messages
from fathom.serve.metrics import CONTENT_TYPE
from fathom.serve.order import need_model
from fathom.serve.page_files import PageFile
from fathom.serve.room import need_room, need_short, need_short_talk
from fathom.serve.service import Service
from fathom.serve.streaming import while_listened
from fathom.serve.wire import Refused

STATS_SECONDS = 2.0     # for the engine's counters
TOKENIZE = ("model", "prompt", "messages", "add_special_tokens", "add_generation_prompt", "return_token_strs")


class OtherRoutes:
    """Their endpoints; each is a method that takes a request."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def _card(self) -> dict[str, Any]:
        info = self.service.info
        return {
            "id": self.service.model, "object": "model", "created": self.service.started,
            "owned_by": "fathom", "max_model_len": info.context,
        }  # fmt: skip

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        return json_response({"object": "list", "data": [self._card()]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{id}."""
        need_model(Fields({"model": request.path_params["model"] or "/"}, ("model",)), self.service.model)
        return json_response(self._card())

    async def health(self, request: Request) -> Response:
        """GET /health: 200 while requests are taken up."""
        if self.service.doors.draining:
            raise ApiError(503, "the server is about to end", fix="ask another one")
        _ = self.service.info
        if self.service.link.trouble:
            what, fix = self.service.link.trouble, "wait: one that hangs is started again"
            raise ApiError(503, what, fix=fix, retry_after=self.service.settings.retry_after)
        return json_response({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """GET /metrics; an engine that is down is a figure, too."""
        try:
            stats: Mapping[str, float] | None = None
            if self.service.link.info is not None:
                async with asyncio.timeout(STATS_SECONDS):
                    stats = await self.service.link.stats()
        except (Refused, TimeoutError):     # an engine that hangs is no reason to tell nothing
            stats = None
        page = self.service.metrics.page(stats, self.service.doors.inside)
        return Response(page, headers={"content-type": CONTENT_TYPE})

    async def info(self, request: Request) -> Response:
        """GET /fathom/info: the engine, and the limits of this server."""
        settings = self.service.settings
        about = {
            "body_bytes": settings.body_bytes, "messages": limits.MESSAGES, "tools": limits.TOOLS,
            "n": limits.CHOICES, "prompts": limits.PROMPTS, "stop": limits.STOPS,
            "stop_length": limits.STOP_LENGTH, "top_logprobs": limits.TOP_LOGPROBS,
            "logit_bias": limits.BIASES, "schema_depth": limits.SCHEMA_DEPTH,
            "schema_bytes": limits.SCHEMA_BYTES,
            "expert_tokens": limits.EXPERT_TOKENS, "inside": settings.most_inside,
        }  # fmt: skip
        told = asdict(self.service.info) | {"model": self.service.model}
        return json_response(told | {"limits": about})

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize: the ids of a prompt, or of messages in the chat template."""
        service, info = self.service, self.service.info
        neutral = {"add_generation_prompt": (True,)}
        fields = Fields(read_object(request.state.body), TOKENIZE, neutral=neutral)
        need_model(fields, service.model)
        one = fields.given("prompt") != fields.given("messages")
        fields.want("prompt", one, "the one of prompt and messages", fix="give exactly one of them")
        add, strings = fields.flag("add_special_tokens"), fields.flag("return_token_strs")
        prompt, messages = fields.text("prompt"), None
        if prompt is None:
            messages = read_messages(fields)
            need_short_talk(messages, info)
        else:
            need_short(len(prompt), "prompt", info)

        async def work() -> Response:
            if prompt is None:
                ids = await service.link.encode(messages=messages)
            else:
                bos = [] if add is False else await service.begin_of_text()
                ids = [*bos, *await service.link.encode(text=prompt)]
            need_room(len(ids), "messages" if prompt is None else "prompt", info)
            texts = None
            if strings:
                await service.texts.fetch(ids)
                texts = [service.texts[one] for one in ids]
            about = {"count": len(ids), "max_model_len": info.context, "tokens": ids, "token_strs": texts}
            return json_response(about)

        return await while_listened(request.receive, work)

    async def experts(self, request: Request) -> Response:
        """POST /fathom/experts: which experts each layer chooses for each of these tokens."""
        service, info = self.service, self.service.info
        fields = Fields(read_object(request.state.body), ("tokens",))
        fields.items("tokens", limits.EXPERT_TOKENS, least=1)
        ids = token_ids(fields.get("tokens"), "tokens", info)

        async def work() -> Response:
            chosen = await service.link.experts(list(ids))
            layers = [layer for layer, count in enumerate(info.experts) if count]
            return json_response({"layers": layers, "experts": chosen})

        return await while_listened(request.receive, work)


def page_route(file: PageFile) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of one file."""

    async def page(request: Request) -> Response:
        return Response(file.content, headers={"content-type": file.kind})

    return page
