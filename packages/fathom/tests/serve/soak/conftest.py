"""A model of a few steps, and servers of it in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from soak_server import Server

from fathom.cli.main import main

SMALL = [
    "data.documents=120", "data.held_out=0.1", "data.workers=1", "train.steps=3", "train.seq_len=48",
    "model.hidden_size=32", "model.num_layers=2", "model.moe.num_experts=4", "model.max_positions=2048",
]  # fmt: skip


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("soaked") / "run"
    assert main(["train", "tiny", *SMALL, "--out", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def start(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts servers, and leaves none behind."""
    folder, started = tmp_path_factory.mktemp("servers"), list[Server]()

    def one(**words: object) -> Server:
        started.append(Server(model, folder, **words))      # type: ignore[arg-type]
        return started[-1]

    yield one
    for server in started:
        server.kill()
