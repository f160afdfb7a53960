"""`fathom serve`: a model over HTTP, with a page to chat on."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fathom.config.errors import need, plain

if TYPE_CHECKING:
    from fathom.serve.limits import Settings
    from fathom.serve.wire import Info

NEEDED = ("fastapi", "uvicorn", "prometheus_client")
KEY_VARIABLE = "FATHOM_API_KEY"


def serve(
    model: Annotated[Path, typer.Option("--model", help="A run, a checkpoint, or any official folder.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="ENGINE.KEY=VALUE", help="Settings of the engine.")
    ] = None,
    port: Annotated[int, typer.Option("--port", help="0 = any that is free.")] = 8000,
    host: Annotated[str, typer.Option("--host", help="Another than this machine needs a key.")] = "127.0.0.1",
    api_key: Annotated[
        list[str] | None, typer.Option("--api-key", help=f"Who may come in; repeatable. Also {KEY_VARIABLE}.")
    ] = None,
    queue: Annotated[int, typer.Option("--queue", help="Requests that may wait; more get 429.")] = 64,
    name: Annotated[str, typer.Option("--name", help="What clients call the model; default: its own.")] = "",
    drain: Annotated[float, typer.Option("--drain", help="Seconds running answers get to finish.")] = 30.0,
    silence: Annotated[float, typer.Option("--silence", help="Seconds an engine may make no sign.")] = 120.0,
    max_context: Annotated[int, typer.Option("--max-context", help="Tokens; 0 = the model's own.")] = 0,
) -> None:
    """Serve a model: OpenAI's interface at /v1, a chat page at /.

    \b
      fathom serve --model runs/demo-6min/sft
      fathom serve --model runs/tiny --port 8080 --queue 16 engine.max_running=8
      FATHOM_API_KEY=... fathom serve --model runs/tiny --host 0.0.0.0

    Without a key only this machine is served. SIGTERM and Ctrl-C let running
    answers finish; a second one does not.
    """
    _need_usable(model)
    need(1 <= queue <= 100_000, f"--queue {queue} is out of bounds", fix="give 1 to 100000")
    need(0 <= drain <= 86_400, f"--drain {drain:g} is out of bounds", fix="give seconds, 0 to 86400")
    need(1 <= silence <= 86_400, f"--silence {silence:g} is out of bounds", fix="give seconds, 1 to 86400")
    engine = _engine_settings(words or (), queue, max_context)

    import asyncio

    from fathom.serve.limits import Settings
    from fathom.serve.link import EngineLink
    from fathom.serve.run import Running, listen
    from fathom.serve.supervise import Waits

    keys = tuple(api_key or ()) or tuple(one for one in (os.environ.get(KEY_VARIABLE, ""),) if one)
    running = engine.get("max_running", Settings().running)
    settings = Settings(keys=keys, name=name, running=running, queue=queue, drain_seconds=drain)
    place = listen(host, port, settings)
    at = place.getsockname()[1]
    print(f"fathom: loading {plain(str(model))}", file=sys.stderr, flush=True)
    seen: list[Info] = []

    def up(info: Info) -> None:
        seen.append(info)
        print("\n".join(lines(info, settings, host, at)), flush=True)

    def told(line: str) -> None:
        if seen:  # the first start speaks for itself
            print(f"fathom: {line}", file=sys.stderr, flush=True)

    link = EngineLink(model, engine, waits=Waits(silence=silence), told=told)
    status = asyncio.run(Running(link, settings, place).run(up))
    raise typer.Exit(status)


def _need_usable(model: Path) -> None:
    missing = [one for one in NEEDED if importlib.util.find_spec(one) is None]
    need(not missing, f"{', '.join(missing)} is not installed", fix="pip install 'fathom-lm[serve]'")
    need(model.exists(), f"--model {plain(str(model))} does not exist", fix="give a run or a checkpoint")


def _engine_settings(words: Any, queue: int, max_context: int) -> dict[str, Any]:
    from fathom.config.engine import EngineConfig
    from fathom.config.override import parse_override
    from fathom.config.schema import Schema

    schema = Schema(root=EngineConfig, prefix="engine.")
    given = dict(parse_override(word, schema) for word in words)
    named = {name.removeprefix("engine."): value for name, value in given.items()}
    found = {"max_waiting": queue, "max_context": max_context} | named
    EngineConfig(**found)
    return found


def lines(info: Info, settings: Settings, host: str, port: int) -> list[str]:
    """What the command says once it serves."""
    shown = f"[{host}]" if ":" in host else host
    wide = "localhost" if host in ("0.0.0.0", "::", "") else shown
    url = f"http://{wide}:{port}"
    who = (
        f"{len(settings.keys)} key{'s' * (len(settings.keys) != 1)}" if settings.keys else "this machine only"
    )
    per_token = info.plain_cache_bytes_per_token / max(info.cache_bytes_per_token, 1)
    return [
        f"model    {settings.name or info.model}, {info.context:,} positions of prompt and answer",
        f"engine   {info.line}",
        f"cache    {info.pages:,} pages of {info.page_positions}, {info.cache_bytes_per_token:,} bytes "
        f"a token, {per_token:.1f} times less than plain attention",
        f"limits   {settings.running} answers at once, {settings.queue} requests wait, "
        f"{settings.body_bytes >> 20} MiB a request",
        f"access   {who}",
        f"page     {url}/",
        f"API      {url}/v1",
    ]
