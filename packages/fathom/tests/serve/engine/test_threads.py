"""The thread that loads a model ends with it: with more of them than cores OpenMP lets all sleep."""

from __future__ import annotations

import asyncio
import threading

import pytest

from fathom.serve.engine_process import _apart


def test_a_call_apart_leaves_no_thread() -> None:
    before = threading.active_count()
    thread = asyncio.run(_apart(threading.current_thread))
    assert thread is not threading.current_thread() and not thread.is_alive()
    assert threading.active_count() == before


def test_what_it_raises_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(_apart(lambda: 1 // 0))
