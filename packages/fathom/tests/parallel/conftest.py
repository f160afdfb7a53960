"""Ranks as processes for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def spawn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`spawn(function, size, patience_s=30)`: how each rank ended, with `value`, `status` and `errors`.

    `function(world)` is a function of the test file, and returns what JSON can say.
    """
    module = _spawn_module()
    folder, numbers = tmp_path_factory.mktemp("worlds"), count()

    def start(function: Callable[[Any], Any], size: int, patience_s: float = 30.0) -> Any:
        return module.run(function, size, folder / str(next(numbers)), patience_s)

    return start


@pytest.fixture(scope="session")
def on_processes(spawn: Any) -> Any:
    """`on_processes(function, size)`: what every rank returned; fails with the words of those that failed."""
    module = _spawn_module()

    def start(function: Callable[[Any], Any], size: int) -> list[Any]:
        values: list[Any] = module.values(spawn(function, size))
        return values

    return start


def _spawn_module() -> Any:
    spec = spec_from_file_location("spawn", Path(__file__).with_name("spawn.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
