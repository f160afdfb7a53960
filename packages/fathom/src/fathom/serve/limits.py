"""What a request may hold and a server holds at once; checked before anything is made of a request."""

from __future__ import annotations

from dataclasses import dataclass

BODY_BYTES = 2 << 20  # of a request, as it comes over the wire
HEADERS, HEADER_BYTES = 64, 16 << 10
TARGET_BYTES = 2048  # of path and query
MESSAGES = 2048  # of a conversation
TOOLS = 128
TOOL_NAME = 64  # characters
CHOICES = 8  # n
PROMPTS = 64  # of one completion request; prompts times n are no more either
STOPS, STOP_LENGTH = 16, 64  # characters; more than OpenAI's 4, for evaluations have 5 and more
TOP_LOGPROBS = 20
BIASES = 1024  # entries of logit_bias
SCHEMA_DEPTH, SCHEMA_BYTES = 32, 64 << 10
EXPERT_TOKENS = 4096  # that /fathom/experts answers about
USER_LENGTH = 512  # characters of `user`, which changes nothing
CONNECTIONS = 512  # above what may be inside at once; more are closed as they come


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How one server behaves. Seconds are of wall-clock time."""

    keys: tuple[str, ...] = ()  # none = this machine only
    name: str = ""  # what the model is called; "" = as the engine calls it
    running: int = 64  # answers that the engine writes at once
    queue: int = 64  # requests that may wait beyond
    body_bytes: int = BODY_BYTES
    body_seconds: float = 20.0  # until a body is whole
    header_seconds: float = 10.0  # until the head of a request is whole
    write_seconds: float = 60.0  # that a client may take to read on
    drain_seconds: float = 30.0  # that running requests get behind SIGTERM
    retry_after: int = 2  # what a refused client is told to wait at least

    @property
    def most_inside(self) -> int:
        """Requests with a body that are being read, wait, or are answered."""
        return self.running + self.queue
