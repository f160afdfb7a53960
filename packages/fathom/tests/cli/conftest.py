"""A run of a few steps, as the commands leave one, and a person who presses Ctrl-C."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fathom.cli.main import main
from fathom.engine import Engine

SMALL = [
    "data.documents=120", "data.held_out=0.1", "data.workers=1", "train.steps=3", "train.seq_len=48",
    "model.hidden_size=32", "model.num_layers=2", "model.moe.num_experts=4", "model.max_positions=256",
]  # fmt: skip


@pytest.fixture
def small() -> list[str]:
    """Settings that make `train tiny` a matter of seconds."""
    return list(SMALL)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talk") / "run"
    assert main(["train", "tiny", *SMALL, "--out", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Call it with n: a signal comes in the n-th step from now, Ctrl-C unless another is named."""

    def at(step: int, number: int = signal.SIGINT, times: int = 1) -> None:
        own, left = Engine.step, [step]

        def step_and_signal(engine: Engine):
            left[0] -= 1
            if left[0] == 0:
                for _ in range(times):
                    handler = signal.getsignal(number)
                    signal.raise_signal(number)
                    while times > 1 and signal.getsignal(number) is handler is not signal.default_int_handler:
                        time.sleep(0.001)   # until the main thread has handled it: two that wait become one
            return own(engine)

        monkeypatch.setattr(Engine, "step", step_and_signal)

    return at
