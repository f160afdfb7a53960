"""What is checked before a request may wait: then it can only succeed, end early or be cancelled."""

from __future__ import annotations

from fathom.config.engine import EngineConfig
from fathom.config.errors import ConfigError, DataError, need
from fathom.config.model import ModelConfig
from fathom.data.chat import encode_chat
from fathom.data.tokenizer import Tokenizer
from fathom.engine.request import Request, RequestError, SamplingParams


def prompt_ids(request: Request, tokenizer: Tokenizer) -> list[int]:
    """The request's prompt as ids; people's text never becomes a control token."""
    if request.tokens is not None:
        wrong = [t for t in request.tokens if isinstance(t, bool) or not isinstance(t, int)]
        need(not wrong, f"tokens holds {wrong[:1]}", fix="give whole numbers", error=RequestError)
        return list(request.tokens)
    if request.text is not None:
        return [tokenizer.bos, *tokenizer.encode(request.text)]
    try:
        return encode_chat(tokenizer, request.messages or (), generation_prompt=True)[0]
    except DataError as problem:
        raise RequestError(str(problem)) from None


def positions(
    prompt: list[int], params: SamplingParams, context: int, tokens: int, capacity: int
) -> int:
    """Positions the answer may fill up to. RequestError when the prompt is empty, unknown or too long.

    context    positions of prompt and answer together
    tokens     of the tokenizer; higher ids are padding rows of the vocabulary
    capacity   positions of all pages together
    """
    need_known(prompt, tokens)
    most, what = context, "the model's context"
    if capacity < most:
        most, what = capacity, "all pages of the cache"
    asked = params.max_tokens or 1
    room = most - len(prompt)
    fix = f"set max_tokens to {room} or less" if room > 0 else "shorten the prompt"
    if capacity < context:
        fix += " or give the engine more pages"
    need(
        asked <= room,
        f"{len(prompt)} prompt tokens and max_tokens={asked} do not fit the {most} positions of {what}",
        fix=fix,
        error=RequestError,
    )
    return len(prompt) + params.max_tokens if params.max_tokens is not None else most


def need_known(prompt: list[int], tokens: int) -> None:
    """RequestError when the prompt is empty or holds what is not one of so many tokens."""
    need(len(prompt) > 0, "the prompt is empty", fix="give at least one token", error=RequestError)
    wrong = [t for t in prompt if not 0 <= t < tokens]
    what = f"the prompt has token {wrong[:1]}, and ids end at {tokens - 1}"
    need(not wrong, what, fix="encode it with this model's tokenizer", error=RequestError)


def check_speculation(
    config: EngineConfig, model: ModelConfig, params: SamplingParams | None = None
) -> None:
    """Whether drafts that are asked for can be made. ConfigError of the engine, RequestError of a request."""
    asked = config.speculate == "on" if params is None else params.speculate is True
    error = ConfigError if params is None else RequestError
    need(
        not asked or model.mtp.depth > 0,
        f"speculation is asked for, and the model {model.name} has no MTP module",
        fix="leave speculate out, or use a model with model.mtp.depth of 1 or more",
        error=error,
    )
    need(
        not asked or config.speculate != "off",
        "speculation is asked for, and the engine runs without it",
        fix="start the engine with engine.speculate=auto",
        error=error,
    )
