"""A server without files says so once, and not with a traceback for every try."""

from __future__ import annotations

import asyncio
import errno
import logging

import pytest

from fathom.serve.scarcity import ACCEPTING, Scarcity


def test_it_is_said_once_a_minute_and_nothing_else_is_swallowed(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    now = [0.0]
    loop.time = lambda: now[0]      # type: ignore[method-assign]
    handler = Scarcity()
    try:
        with caplog.at_level(logging.ERROR, logger="asyncio"):
            for now[0] in (0.0, 0.5, 59.0, 60.0, 61.0):
                problem = OSError(errno.EMFILE, "Too many open files")
                handler(loop, {"message": ACCEPTING, "exception": problem})
            said = [record.getMessage() for record in caplog.records]
            assert len(said) == 2 and said[0] == said[1]
            assert "Too many open files" in said[0] and "Fix: " in said[0] and "\n" not in said[0]
            handler(loop, {"message": "something else"})
            assert caplog.records[-1].getMessage().startswith("something else")
    finally:
        loop.close()


def test_asyncio_words_it_so() -> None:
    """Another Python may word it otherwise; then every try would be a traceback again."""
    import inspect
    from asyncio import selector_events

    assert f"'{ACCEPTING}'" in inspect.getsource(selector_events).replace('"', "'")
