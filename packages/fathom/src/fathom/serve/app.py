"""The web application: routes, the guard before them, and one form for every error.

    app = make_app(link, Settings(keys=("secret",)))

`app.state.service` is what its runner drains.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fathom.serve.chat import ChatForm, read_chat
from fathom.serve.completions import TextForm, prepare, read_completion
from fathom.serve.errors import ApiError
from fathom.serve.fields import read_object
from fathom.serve.guard import Guard
from fathom.serve.limits import Settings
from fathom.serve.other_routes import OtherRoutes, page_route
from fathom.serve.page_files import PageFile, read_page
from fathom.serve.service import Service
from fathom.serve.streaming import GONE, ClientGone, answer, as_api_error, while_listened
from fathom.serve.wire import Link, Refused

WORDS = {404: ("there is nothing at this address", "see the guide for the routes"),
         405: ("this address takes another method", "use one of those in Allow")}  # fmt: skip


def make_app(link: Link, settings: Settings, page: dict[str, PageFile] | None = None) -> FastAPI:
    """The application over one engine; `page` is by default the one that is installed."""
    service, files = Service(link, settings), read_page() if page is None else page
    app = FastAPI(title="fathom", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.service = service
    other = OtherRoutes(service)

    async def chat(request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = read_object(request.state.body)
        order = read_chat(body, service.info, service.model, request.state.key)
        return await answer(request, service, order, ChatForm())

    async def completions(request: Request) -> Response:
        """POST /v1/completions."""
        body = read_object(request.state.body)
        wanted = read_completion(body, service.info, service.model, request.state.key)
        order = await while_listened(request.receive, lambda: prepare(wanted, service))
        return await answer(request, service, order, TextForm())

    table = [
        ("POST", "/v1/chat/completions", chat),
        ("POST", "/v1/completions", completions),
        ("GET", "/v1/models", other.models),
        ("GET", "/v1/models/{model:path}", other.model),
        ("POST", "/tokenize", other.tokenize),
        ("GET", "/health", other.health),
        ("GET", "/metrics", other.metrics),
        ("GET", "/fathom/info", other.info),
        ("POST", "/fathom/experts", other.experts),
        *(("GET", path, page_route(file)) for path, file in files.items()),
    ]
    for method, path, endpoint in table:
        app.add_api_route(path, endpoint, methods=[method], response_model=None)
    _tell_errors(app, service)
    routes = frozenset(path for _, path, _ in table)
    app.add_middleware(Guard, service=service, routes=routes, page=frozenset(files))
    return app


def _tell_errors(app: FastAPI, service: Service) -> None:
    """Every refusal in OpenAI's form, whoever raised it; faults are the guard's to tell."""

    async def ours(request: Request, problem: Exception) -> Response:
        return as_api_error(problem, service).response()

    async def framework(request: Request, problem: Exception) -> Response:
        assert isinstance(problem, HTTPException), problem
        what, fix = WORDS.get(problem.status_code, (str(problem.detail), "correct the request"))
        return ApiError(problem.status_code, what, fix=fix).response(problem.headers)

    async def gone(request: Request, problem: Exception) -> Response:
        service.metrics.gone.inc()
        return Response(status_code=GONE)

    handlers: dict[Any, Any] = {ApiError: ours, Refused: ours, HTTPException: framework, ClientGone: gone}
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
